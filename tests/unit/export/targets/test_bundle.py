import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import export.targets.bundle
from export.fold.load import fold
from export.parity.reference import reference_logits
from export.runtime import OpenClassifier
from export.runtime.open_vocabulary.bundle import Bundle
from export.targets.bundle import write_bundle
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError, ParityError, PromptError, StorageError
from fedprompt.identity import sha256_file
from tests.prompts import CLASSES, serving, tuned

Images = npt.NDArray[np.uint8]
NEW = "red_panda"


def test_a_bundle_is_its_files_and_their_hashes(exported_bundle: Path, clip: FrozenClip) -> None:
    manifest = json.loads((exported_bundle / "bundle.json").read_bytes())
    found = {str(p.relative_to(exported_bundle)) for p in exported_bundle.rglob("*.*")}
    assert {*manifest["files"], "bundle.json"} == found
    assert {"classifier.onnx", "text_encoder.onnx", "tokenizer.json"} < found
    for name, digest in manifest["files"].items():
        assert sha256_file(exported_bundle / name) == digest
    assert manifest["backbone"]["sha256"] == clip.fingerprint
    assert manifest["tokenizer_sha256"] == clip.tokenizer_fingerprint
    (version,) = manifest["versions"]
    assert version["artefact_sha256"] == tuned(clip).sha256
    assert version["classes"] == list(CLASSES)


def test_a_local_path_stays_at_home(
    clip: FrozenClip, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "name", "local-dir:/home/alice/clip")
    artefact = tuned(clip)
    assert artefact.metadata["backbone"]["name"] == clip.name  # by which it is loaded again
    write_bundle(tmp_path / "b", clip, artefact, images)
    for path in (tmp_path / "b").rglob("*.*"):
        assert b"alice" not in path.read_bytes()
    assert Bundle(tmp_path / "b").manifest.backbone["name"] == "local-dir:clip"


# one method of each host, and the heads; kgcoop, prograd, advpt are coop's host, promptsrc ivlp's
@pytest.mark.parametrize(
    "method",
    ["coop", "ivlp", "maple", "mudpt", "sdpt", "vpt", "spt", "fedclip", "template", "ensemble"],
)
def test_a_new_class_is_what_torch_would_make_of_it(
    clip: FrozenClip, images: Images, tmp_path: Path, method: str
) -> None:
    artefact = tuned(clip, method)
    written = write_bundle(tmp_path / "b", clip, artefact, images)
    assert written.vectors < 1e-5
    assert written.classifier.parity is not None
    assert written.classifier.parity.holds
    opened = OpenClassifier(tmp_path / "b", provider="cpu", threads=1)
    opened.add_class(NEW)
    names = (*CLASSES, NEW)
    if method in ("template", "ensemble"):  # these artefacts hold the vectors themselves
        expected = fold(tuned(clip, method, classes=names), clip)
    else:
        expected = fold(serving(artefact, *names), clip)
    assert np.abs(opened._state.vectors - expected.class_vectors).max() < 1e-5
    logits = reference_logits(clip, expected, images)
    assert np.abs(opened.logits(images) - logits).max() < 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": 2},
        {"name_position": "middle"},
        {"name_position": "middle", "tokens": 3},
        {"name_position": "front", "form": "lowrank"},
    ],
)
def test_a_new_class_under_every_layout_is_what_torch_would_make_of_it(
    clip: FrozenClip, images: Images, tmp_path: Path, settings: dict[str, object]
) -> None:
    artefact = tuned(clip, "coop", **settings)
    assert write_bundle(tmp_path / "b", clip, artefact, images).vectors < 1e-5
    opened = OpenClassifier(tmp_path / "b", provider="cpu", threads=1)
    for new in (NEW, "an X-ray!!x"):
        opened.add_class(new)
    expected = fold(serving(artefact, *CLASSES, NEW, "an X-ray!!x"), clip)
    assert np.abs(opened._state.vectors - expected.class_vectors).max() < 1e-5


def test_vectors_of_each_class_are_refused(
    clip: FrozenClip, images: Images, tmp_path: Path
) -> None:
    artefact = tuned(clip, "coop", class_specific=True)
    with pytest.raises(GraphError, match="each class it was tuned for has vectors of its own"):
        write_bundle(tmp_path / "b", clip, artefact, images)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("method", "why"), [("linear", "a weight and a bias"), ("cocoop", "fold")])
def test_a_method_without_an_open_vocabulary_is_refused(
    clip: FrozenClip, images: Images, tmp_path: Path, method: str, why: str
) -> None:
    with pytest.raises((GraphError, PromptError), match=why):
        write_bundle(tmp_path / "b", clip, tuned(clip, method), images)
    assert not (tmp_path / "b").exists()


def test_a_text_tower_that_differs_is_refused(
    clip: FrozenClip, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.targets.bundle, "VECTOR_BOUND", -1.0)
    with pytest.raises(ParityError, match="class vectors of the text encoder"):
        write_bundle(tmp_path / "b", clip, tuned(clip), images)
    assert not (tmp_path / "b").exists()


def test_a_bundle_is_not_overwritten(bundle: Path, clip: FrozenClip, images: Images) -> None:
    with pytest.raises(StorageError, match="another --output"):
        write_bundle(bundle, clip, tuned(clip), images)
