import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import export.runtime.open_vocabulary.bundle
from export.fold.load import fold
from export.parity.check import reference_logits
from export.runtime import OpenClassifier
from export.runtime.open_vocabulary.bundle import Bundle
from export.runtime.open_vocabulary.swap import swap
from export.targets.bundle import export_bundle
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ArtefactError, StorageError
from tests.prompts import CLASSES, serving, tuned

Images = npt.NDArray[np.uint8]


@pytest.mark.parametrize("form", ["lowrank", "full"])
def test_a_new_prompt_answers_as_torch(
    bundle: Path, clip: FrozenClip, images: Images, form: str
) -> None:
    opened = OpenClassifier(bundle, threads=1)
    opened.add_class("red panda")
    opened.save()
    new = tuned(clip, seed=1, form=form, template="a photo of a {}, at night.")
    assert swap(bundle, new) == 3
    assert opened.refresh() == 3
    expected = fold(serving(new, *CLASSES, "red panda"), clip)
    assert np.abs(opened._state.vectors - expected.class_vectors).max() < 1e-5
    assert np.abs(opened.logits(images) - reference_logits(clip, expected, images)).max() < 1e-3
    opened.add_class("sea")  # under the new prompt
    expected = fold(serving(new, *opened.classes), clip)
    assert np.abs(opened._state.vectors - expected.class_vectors).max() < 1e-5
    assert Bundle(bundle).manifest.served.artefact_sha256 == new.sha256
    assert Bundle(bundle).roll_back() == 2


@pytest.mark.parametrize("position", ["middle", "front"])
def test_prompts_beside_the_name_are_swapped_among_themselves(
    clip: FrozenClip, images: Images, tmp_path: Path, position: str
) -> None:
    folder = tmp_path / "b"
    export_bundle(folder, tuned(clip, name_position="middle"), clip, images)
    new = tuned(clip, seed=1, name_position=position, template="a photo of a {}, at night.")
    swap(folder, new)
    opened = OpenClassifier(folder, threads=1)
    opened.add_class("red panda")
    expected = fold(serving(new, *CLASSES, "red panda"), clip)
    assert np.abs(opened._state.vectors - expected.class_vectors).max() < 1e-5
    with pytest.raises(ArtefactError, match="name_position end, the bundle's prompt stands beside"):
        swap(folder, tuned(clip))


def test_words_that_stay_come_with_the_prompt(bundle: Path, clip: FrozenClip) -> None:
    new = tuned(clip, seed=1, init="a photo of a big", tokens=4)
    swap(bundle, new)
    expected = fold(serving(new, *CLASSES), clip)
    found = OpenClassifier(bundle, threads=1)._state.vectors
    assert np.abs(found - expected.class_vectors).max() < 1e-5


def test_a_prompt_that_stands_elsewhere_is_refused(bundle: Path, clip: FrozenClip) -> None:
    with pytest.raises(ArtefactError, match="has name_position front, the bundle's prompt stands"):
        swap(bundle, tuned(clip, name_position="front"))
    own = tuned(clip, class_specific=True, init="random", tokens=2, classes=("tench", "sea"))
    with pytest.raises(
        ArtefactError, match="says tokens 2 and class_specific True, its prompt has 4"
    ):
        swap(bundle, own)  # 2 classes x 2 vectors: of the bundle's shape


def changed(artefact: Artefact, **values: object) -> Artefact:
    return replace(artefact, metadata=artefact.metadata | values)


def without(artefact: Artefact, name: str) -> Artefact:
    return replace(artefact, tensors={k: a for k, a in artefact.tensors.items() if k != name})


def test_what_does_not_belong_is_refused(bundle: Path, clip: FrozenClip) -> None:
    artefact = tuned(clip, seed=1)
    tensors = artefact.tensors
    cases = {
        "method is kgcoop, the bundle's dip": changed(artefact, method="kgcoop"),
        "backbone is": changed(artefact, backbone={"sha256": "0" * 64}),
        "tokenizer is": changed(artefact, tokenizer_sha256="0" * 64),
        "white level is 4095, the bundle's 0": changed(artefact, white_level=4095),
        "preprocessing is": changed(artefact, preprocessing={"size": 64}),
        r"shape \[1, 3, 32\], the bundle takes \[1, 4, 32\]": tuned(
            clip, seed=1, init="random", tokens=3
        ),
        "expected a text context": without(without(artefact, "ctx.A"), "ctx.B"),
        "no product": replace(artefact, tensors=tensors | {"ctx.B": tensors["ctx.B"][:0]}),
        "its factors make": replace(artefact, tensors=tensors | {"ctx.start": tensors["ctx.A"]}),
    }
    for why, case in cases.items():
        with pytest.raises(ArtefactError, match=why):
            swap(bundle, case)
    assert Bundle(bundle).manifest.current == len(Bundle(bundle).manifest.versions) == 1


def test_visual_prompts_are_inside_the_graph_and_refused(
    clip: FrozenClip, images: Images, tmp_path: Path
) -> None:
    export_bundle(tmp_path / "b", tuned(clip, "ivlp"), clip, images)
    with pytest.raises(ArtefactError, match=r"prompts the image tower.*inside classifier\.onnx"):
        swap(tmp_path / "b", tuned(clip, "ivlp", seed=1))


def test_a_crash_leaves_the_old_prompt(
    bundle: Path, clip: FrozenClip, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = OpenClassifier(bundle, threads=1).logits(images)
    write = export.runtime.open_vocabulary.bundle.write_atomic

    def crashing(path: Path, data: bytes) -> None:
        if path.name == "bundle.json":
            raise StorageError("killed")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(export.runtime.open_vocabulary.bundle, "write_atomic", crashing)
        with pytest.raises(StorageError):
            swap(bundle, tuned(clip, seed=1))
    np.testing.assert_array_equal(OpenClassifier(bundle, threads=1).logits(images), before)
    assert swap(bundle, tuned(clip, seed=1)) == 2


def test_neither_torch_nor_onnx_is_needed(bundle: Path, clip: FrozenClip, tmp_path: Path) -> None:
    tuned(clip, seed=1).save(tmp_path / "artefact")
    script = f"""
import sys
for name in ("torch", "onnx", "pydantic", "open_clip", "jaxtyping"):
    sys.modules[name] = None
from pathlib import Path
from export.runtime import OpenClassifier
from export.runtime.open_vocabulary.swap import swap
from fedprompt.artefact import load_artefact
swap(Path({str(bundle)!r}), load_artefact(Path({str(tmp_path / "artefact")!r})))
opened = OpenClassifier({str(bundle)!r}, threads=1)
opened.add_class("red panda")
print(*opened.classes, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip().split("|") == [*CLASSES, "red panda"], done.stderr
