import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedprompt.artefact
from fedprompt.artefact import ANNOUNCED, CONFIG, VERSION, WEIGHTS, Artefact
from fedprompt.errors import ArtefactError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.storage import write_atomic


def metadata(**changes: Any) -> dict[str, Any]:
    plain = {
        "method": "dip",
        "host": "coop",
        "form": "lowrank",
        "rank": 1,
        "tokens": 4,
        "trained": ["ctx.A", "ctx.B"],
        "dtype": "float32",
        "backbone": {"name": "ViT-B-32", "pretrained": "openai", "sha256": "a" * 64},
        "tokenizer_sha256": "b" * 64,
        "classes": ["cat", "dög"],
        "template": "a photo of a {}.",
        "preprocessing": {"size": 224},
        "round": 3,
        "seed": 0,
        "parent": None,
    }
    return plain | changes


def artefact(value: float = 1.0, **changes: Any) -> Artefact:
    tensors = {
        "ctx.A": np.full((4, 1), value, np.float32),
        "ctx.B": np.ones((1, 8), np.float32),
        "ctx.start": np.zeros((4, 8), np.float32),
    }
    return Artefact(tensors, metadata(**changes))


def test_round_trip(tmp_path: Path) -> None:
    saved = artefact()
    saved.save(tmp_path / "prompt")
    found = Artefact.load(tmp_path / "prompt")
    assert {p.name for p in (tmp_path / "prompt").iterdir()} == {WEIGHTS, CONFIG}
    for name, array in saved.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)
    assert saved.metadata.items() <= found.metadata.items()
    assert found.metadata["fedprompt_version"] == VERSION
    assert found.metadata["weights_sha256"] == sha256_bytes(
        (tmp_path / "prompt" / WEIGHTS).read_bytes()
    )
    assert found.sha256 == saved.sha256 == sha256_bytes((tmp_path / "prompt" / CONFIG).read_bytes())


def test_identity_follows_weights_and_settings() -> None:
    identities = {artefact().sha256, artefact(2.0).sha256, artefact(round=4).sha256}
    assert len(identities) == 3


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_crash_leaves_the_old_artefact_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    artefact(1.0).save(tmp_path)
    done = 0

    def cut(path: Path, data: bytes) -> None:
        nonlocal done
        if done == writes:
            raise PowerCutError
        done += 1
        write_atomic(path, data)

    monkeypatch.setattr(fedprompt.artefact, "write_atomic", cut)
    with pytest.raises(PowerCutError):
        artefact(2.0, round=4).save(tmp_path)
    found = Artefact.load(tmp_path)
    expected = artefact(2.0, round=4) if writes == 2 else artefact(1.0)
    assert found.sha256 == expected.sha256
    monkeypatch.undo()
    artefact(3.0).save(tmp_path)
    assert Artefact.load(tmp_path).sha256 == artefact(3.0).sha256
    assert not (tmp_path / ANNOUNCED).exists()


def change(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_bytes(canonical_json(config | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["dog", "cat"]}, "order were changed"),
        ({"classes": []}, "list of names"),
        ({"weights_sha256": "0" * 64}, "do not belong together"),
        ({"backbone": {"name": "x"}}, "backbone.sha256"),
        ({"fedprompt_version": "9.0.0"}, "reads up to 0.1"),
        ({"fedprompt_version": None}, "upgrade"),
        ({"template": 3}, "'template'"),
    ],
)
def test_changed_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    artefact().save(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ArtefactError, match=message):
        Artefact.load(tmp_path)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    artefact().save(tmp_path)
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(ArtefactError, match="do not belong together"):
        Artefact.load(tmp_path)


def test_an_incomplete_artefact_is_not_saved(tmp_path: Path) -> None:
    broken = artefact()
    del broken.metadata["template"]
    with pytest.raises(ArtefactError, match="template"):
        broken.save(tmp_path / "prompt")
    assert not (tmp_path / "prompt").exists()


def test_a_missing_file_is_named_and_pickle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtefactError, match=r"adapter_model\.bin is never opened"):
        Artefact.load(tmp_path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a":NaN}', b"\xff", b"[" * 100_000])
def test_a_broken_configuration_is_refused(tmp_path: Path, text: bytes) -> None:
    artefact().save(tmp_path)
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(ArtefactError, match=CONFIG):
        Artefact.load(tmp_path)
