from typing import Any

import open_clip
import pytest

from export.runtime.open_vocabulary.tokenizer import Tokenizer
from export.targets.tokenizer_file import tokenizer_file
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError
from tests.conftest import tiny_model


def clip_with(tokenizer: Any) -> FrozenClip:
    return FrozenClip(tiny_model(), tokenizer, Preprocessing(size=32), name="tiny")


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_every_cleaning_comes_along(clean: str) -> None:
    theirs = open_clip.SimpleTokenizer(clean=clean, context_length=20)
    own = Tokenizer.parse(tokenizer_file(clip_with(theirs)))
    texts = ["A  Photo_of a SHIH-tzu's &amp; <END_OF_TEXT>", "naïve", "", "Ünder _x_."]
    assert own(texts).tolist() == theirs(texts).tolist()


class Sentencepiece:
    """Tokenizes as SigLIP's might: another vocabulary."""

    context_length = 16

    def __call__(self, texts: list[str]) -> Any:
        return open_clip.SimpleTokenizer(context_length=16)(texts)


@pytest.mark.parametrize(
    "tokenizer",
    [
        Sentencepiece(),
        open_clip.SimpleTokenizer(context_length=16, reduction_mask="simple"),
    ],
    ids=["sentencepiece", "reduction"],
)
def test_another_kind_is_refused(tokenizer: Any) -> None:
    with pytest.raises(GraphError, match=r"byte-pair encoding.*without --open-vocabulary"):
        tokenizer_file(clip_with(tokenizer))


def test_ids_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = clip_with(open_clip.SimpleTokenizer())
    monkeypatch.setattr(clip, "tokenizer_fingerprint", "0" * 64)
    with pytest.raises(GraphError, match="other ids"):
        tokenizer_file(clip)
