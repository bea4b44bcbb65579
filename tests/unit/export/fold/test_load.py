from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import export.fold.load
from export.fold.load import fold, load_clip, no_images, real_images
from fedprompt.artefact import load_artefact
from fedprompt.backbone.class_encoder import PLAIN
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import ArtefactError, DataError
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from tests.pictures import image_folder

CLASSES, TEMPLATE = ("cat", "dog"), "a photo of a {}."
PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def saved(clip: FrozenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    prompt = build_prompt(prompt_config(method="dip"), clip, CLASSES, TEMPLATE)
    to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0).save(folder / "artefact")
    return folder


def test_the_artefact_s_clip_is_asked_for_and_settings_win(
    clip: FrozenClip, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        export.fold.load, "load_backbone", lambda config: (asked.append(config), clip)[1]
    )
    artefact = load_artefact(saved)
    assert load_clip(artefact, {}) is clip
    load_clip(artefact, {"backbone.pretrained": "here.safetensors"})
    assert [(c.name, c.pretrained) for c in asked] == [
        ("tiny", "none"),
        ("tiny", "here.safetensors"),
    ]
    vectors = fold(artefact, clip).class_vectors
    assert vectors.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_another_clip_or_preprocessing_is_refused(
    clip: FrozenClip, tiny_clip: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = load_artefact(saved / "artefact")
    monkeypatch.setattr(export.fold.load, "load_backbone", lambda config: tiny_clip(no_ln_pre=True))
    with pytest.raises(ArtefactError, match=r"backbone\.pretrained"):
        load_clip(artefact, {})
    monkeypatch.setattr(export.fold.load, "load_backbone", lambda config: clip)
    artefact.metadata["preprocessing"]["interpolation"] = "bilinear"
    with pytest.raises(ArtefactError, match="bilinear"):
        load_clip(artefact, {})


def test_real_images_are_spread_over_the_test_set(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for level, name in ((10, "dark"), (240, "light")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                grey = level + number + (5 if split == "test" else 0)
                Image.new("RGB", (9, 8), (grey,) * 3).save(folder / f"{number}.png")
    pre = Preprocessing(size=8)
    names = ("light", "dark")  # of a prompt: in another order than the folders
    real = real_images({"data.source": str(tmp_path)}, 3, pre, names)
    found = real.pictures
    assert found.shape == (3, 8, 8, 3)
    assert found[0].max() < 100 < found[-1].min()
    assert real.labels is not None
    assert [names[i] for i in real.labels] == ["dark", "dark", "light"]
    assert len(real.calibration) == 8
    assert {int(p.min()) for p in real.calibration} == {10, 11, 12, 13, 240, 241, 242, 243}
    other = real_images({"data.source": str(tmp_path)}, 99, pre, ("light", "grey"))
    assert len(other.pictures) == 8
    assert other.labels is None
    assert no_images(pre).pictures.shape == (0, 8, 8, 3)


def test_two_classes_of_one_name_are_known_by_their_place_only(tmp_path: Path) -> None:
    root, pre = image_folder(tmp_path / "photos", CLASSES, 10), Preprocessing(size=8)
    named = {"data.source": str(root)}
    assert real_images(named, 9, pre, ("cat", "dog")).labels is not None
    assert real_images(named, 9, pre, ("cat", "dog", "cat")).labels is None


def test_images_may_be_as_large_as_the_data_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "photos", CLASSES, 10)
    asked = []
    monkeypatch.setattr(
        "fedprompt.data.image_set.decode",
        lambda c, *, max_pixels, white_level: asked.append(max_pixels) or PIXELS,
    )
    real_images(
        {"data.source": str(root), "data.max_pixels": 70_000_000}, 2, Preprocessing(size=8), CLASSES
    )
    assert len(asked) > 2
    assert set(asked) == {70_000_000}


def test_no_test_images_are_told(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", CLASSES, 4)
    with pytest.raises(DataError, match=r"raise data\.test_share above 0"):
        real_images(
            {"data.source": str(root), "data.test_share": 0.0}, 2, Preprocessing(size=8), CLASSES
        )


def test_class_vectors_come_from_the_plain_tower(clip: FrozenClip, saved: Path) -> None:
    artefact = load_artefact(saved)
    prompt = from_artefact(artefact, clip, PLAIN)
    np.testing.assert_array_equal(
        fold(artefact, clip).class_vectors, prompt.class_vectors().detach().numpy()
    )


@pytest.mark.parametrize(("method", "part"), [("linear", "bias"), ("fedclip", "adapter")])
def test_what_stands_behind_the_tower_is_folded_too(
    clip: FrozenClip, method: str, part: str
) -> None:
    prompt = build_prompt(prompt_config(method=method), clip, CLASSES, TEMPLATE)
    artefact = to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0)
    assert getattr(fold(artefact, clip), part) is not None
