import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch

import export.parity.verify
from export.fold.constants import Adapter, Constants, VisualPrompts
from export.fold.load import fold
from export.parity.check import reference_logits
from export.runtime import OpenClassifier
from export.runtime.open_vocabulary.bundle import Bundle
from export.runtime.open_vocabulary.tokenizer import Tokenizer
from export.targets.bundle import (
    ClassTexts,
    class_texts,
    export_bundle,
    fixed_by,
    require_open,
    tokenizer_file,
)
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError, ParityError, PromptError, StorageError
from fedprompt.identity import sha256_file
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.template import ENSEMBLE_TEMPLATES
from tests.conftest import tiny_model
from tests.prompts import CLASSES, TEMPLATE, serving, tuned

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
    export_bundle(tmp_path / "b", artefact, clip, images)
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
    written = export_bundle(tmp_path / "b", artefact, clip, images)
    assert written.class_vector_difference is not None
    assert written.class_vector_difference < 1e-5
    assert written.conversion.parity is not None
    assert written.conversion.parity.holds
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
    assert export_bundle(tmp_path / "b", artefact, clip, images).class_vector_difference < 1e-5
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
        export_bundle(tmp_path / "b", artefact, clip, images)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("method", "why"), [("linear", "a weight and a bias"), ("cocoop", "fold")])
def test_a_method_without_an_open_vocabulary_is_refused(
    clip: FrozenClip, images: Images, tmp_path: Path, method: str, why: str
) -> None:
    with pytest.raises((GraphError, PromptError), match=why):
        export_bundle(tmp_path / "b", tuned(clip, method), clip, images)
    assert not (tmp_path / "b").exists()


def test_a_text_tower_that_differs_is_refused(
    clip: FrozenClip, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.parity.verify, "_VECTOR_BOUND", -1.0)
    with pytest.raises(ParityError, match="class vectors differ"):
        export_bundle(tmp_path / "b", tuned(clip), clip, images)
    assert not (tmp_path / "b").exists()


def test_a_bundle_is_not_overwritten(bundle: Path, clip: FrozenClip, images: Images) -> None:
    with pytest.raises(StorageError, match="another --output"):
        export_bundle(bundle, tuned(clip), clip, images)


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


VECTORS = np.eye(2, 4, dtype=np.float32)
SQUARE, ROW = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("method", "templates"),
    [
        ("dip", ("X X X X {}, outdoors.",)),
        ("vpt", (TEMPLATE,)),
        ("fedclip", (TEMPLATE,)),
        ("template", (TEMPLATE,)),
        ("ensemble", ENSEMBLE_TEMPLATES),
    ],
)
def test_the_words_of_a_method(clip: FrozenClip, method: str, templates: tuple[str, ...]) -> None:
    artefact = tuned(clip, method)
    words = class_texts(from_artefact(artefact, clip), TEMPLATE)
    assert words.templates == templates
    assert (words.context is None) == (method != "dip")
    if words.context is not None:
        factors = (torch.from_numpy(artefact.tensors[f"ctx.{side}"].copy()) for side in "AB")
        expected = artefact.tensors["ctx.start"] + torch.matmul(*factors).numpy()
        np.testing.assert_allclose(words.context, expected[None], atol=1e-6)


def test_what_serves_its_own_classes_only_is_refused() -> None:
    with pytest.raises(GraphError, match="a weight and a bias"):
        require_open(Constants(class_vectors=VECTORS, bias=np.zeros(2, np.float32)), "linear")
    with pytest.raises(GraphError, match="several domains"):
        require_open(Constants(class_vectors=VECTORS, mixture=VECTORS[None]), "adapt")
    require_open(Constants(class_vectors=VECTORS), "dip")


def test_why_a_prompt_cannot_be_exchanged() -> None:
    prompted = ClassTexts(("X {}",), np.zeros((1, 1, 4), np.float32))
    visual = VisualPrompts(tokens=np.zeros((1, 1, 4), np.float32))
    adapter = Adapter(hidden=SQUARE, hidden_bias=ROW, gate=SQUARE, gate_bias=ROW)
    plain = Constants(class_vectors=VECTORS)
    assert fixed_by(plain, prompted, "dip") == ""
    assert "image tower" in fixed_by(Constants(class_vectors=VECTORS, visual=visual), prompted, "x")
    assert "adapter" in fixed_by(Constants(class_vectors=VECTORS, adapter=adapter), prompted, "x")
    assert "no text prompt" in fixed_by(plain, ClassTexts(("{}",)), "template")


@pytest.mark.parametrize(
    ("settings", "spoken", "leading"),
    [
        ({"tokens": 2}, "X X of a {}, outdoors.", True),
        ({"name_position": "middle"}, "X X {} X X, outdoors.", False),
        ({"name_position": "front"}, "{} X X X X, outdoors.", False),
    ],
)
def test_the_words_of_a_layout(
    clip: FrozenClip, settings: dict[str, object], spoken: str, leading: bool
) -> None:
    words = class_texts(from_artefact(tuned(clip, "coop", **settings), clip), TEMPLATE)
    assert (words.templates, words.leading) == ((spoken,), leading)


def test_vectors_of_each_class_have_nothing_for_a_new_one(clip: FrozenClip) -> None:
    prompt = from_artefact(tuned(clip, "dip", class_specific=True), clip)
    told = "class_specific = true has no open vocabulary: each class it was tuned for has vectors"
    with pytest.raises(GraphError, match=told):
        class_texts(prompt, TEMPLATE)
