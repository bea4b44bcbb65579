import sys

import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.runtime.open_vocabulary.tokenizer import Tokenizer
from export.targets.bundle import tokenizer_file
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import FedpromptError, GraphError
from tools.tokenizer_strings import strings

THEIRS = open_clip.SimpleTokenizer(context_length=16)


@pytest.fixture(scope="module")
def data(clip: FrozenClip) -> bytes:
    return tokenizer_file(clip)


@pytest.fixture(scope="module")
def own(data: bytes) -> Tokenizer:
    return Tokenizer.parse(data)


def test_strings_of_every_kind_have_open_clip_s_ids(own: Tokenizer) -> None:
    texts = strings(800, seed=1)  # python -m tools.tokenizer_strings takes 10,000
    found, expected = own(texts), THEIRS(texts).numpy()
    assert [t for t, same in zip(texts, (found == expected).all(1), strict=True) if not same] == []
    assert found.shape == (800, 16)


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_any_string_has_open_clip_s_ids(text: str) -> None:
    own = _kept()
    assert own.encode(text) == THEIRS.encode(text)


def _kept(cache: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006 - a cache: hypothesis wants no fixture
    if not cache:
        data = {
            "merges": [" ".join(pair) for pair in THEIRS.bpe_ranks],
            "special": ["<start_of_text>", "<end_of_text>"],
        }
        cache.append(Tokenizer(**data, clean="lower", context_length=16))
    return cache[0]


def test_what_is_too_long_is_cut_and_ends(own: Tokenizer) -> None:
    (row,) = own(["owl " * 40])
    assert row[-1] == own.end
    assert row.tolist() == THEIRS(["owl " * 40])[0].tolist()


@pytest.mark.parametrize(
    "change", [b"{", b"[]", b"{}", b'{"format":"clip-bpe 1","merges":3}', b'{"format":"other"}']
)
def test_a_damaged_file_is_refused(change: bytes) -> None:
    with pytest.raises(GraphError, match="export again"):
        Tokenizer.parse(change)


def test_merges_that_are_missing_are_noticed(data: bytes) -> None:
    with pytest.raises(GraphError, match="damaged"):
        Tokenizer.parse(data.replace(b'"clean":"lower"', b'"clean":"other"'))


def test_a_missing_package_is_named(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(FedpromptError, match=r"'ftfy'.*open-vocabulary"):
        Tokenizer.parse(data)
