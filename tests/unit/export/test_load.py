from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import export.load
from export.load import fold, load_clip, real_images
from fedprompt.backbone.class_encoder import PLAIN
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import ArtefactError, DataError
from fedprompt.prompts.artefacts import from_artefact, load_artefact, to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.config import PromptConfig
from tests.pictures import image_folder

CLASSES, TEMPLATE = ("cat", "dog"), "a photo of a {}."
PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def saved(clip: FrozenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    prompt = build_prompt(PromptConfig(method="dip"), clip, CLASSES, TEMPLATE)
    to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0).save(folder / "artefact")
    return folder


def test_the_artefact_s_clip_is_asked_for_and_settings_win(
    clip: FrozenClip, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        export.load, "load_backbone", lambda config: (asked.append(config), clip)[1]
    )
    artefact = load_artefact(saved)
    assert load_clip(artefact, {}) is clip
    load_clip(artefact, {"backbone.pretrained": "here.safetensors"})
    assert [(c.name, c.pretrained) for c in asked] == [
        ("tiny", "none"),
        ("tiny", "here.safetensors"),
    ]
    vectors = fold(artefact, clip)
    assert vectors.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_another_clip_or_preprocessing_is_refused(
    clip: FrozenClip, tiny_clip: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = load_artefact(saved / "artefact")
    monkeypatch.setattr(export.load, "load_backbone", lambda config: tiny_clip(no_ln_pre=True))
    with pytest.raises(ArtefactError, match=r"backbone\.pretrained"):
        load_clip(artefact, {})
    monkeypatch.setattr(export.load, "load_backbone", lambda config: clip)
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
    found = real_images({"data.source": str(tmp_path)}, 3, pre)
    assert found.shape == (3, 8, 8, 3)
    assert found[0].max() < 100 < found[-1].min()
    assert len(real_images({"data.source": str(tmp_path)}, 99, pre)) == 8
    assert real_images({"data.source": "does not exist"}, 0, pre).shape == (0, 8, 8, 3)


def test_images_may_be_as_large_as_the_data_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "photos", CLASSES, 10)
    asked = []
    monkeypatch.setattr(
        export.load, "decode", lambda c, *, max_pixels: asked.append(max_pixels) or PIXELS
    )
    real_images({"data.source": str(root), "data.max_pixels": 70_000_000}, 2, Preprocessing(size=8))
    assert asked == [70_000_000] * 2


def test_no_test_images_are_told(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", CLASSES, 4)
    with pytest.raises(DataError, match=r"raise data\.test_share above 0"):
        real_images({"data.source": str(root), "data.test_share": 0.0}, 2, Preprocessing(size=8))


def test_class_vectors_come_from_the_plain_tower(clip: FrozenClip, saved: Path) -> None:
    artefact = load_artefact(saved)
    prompt = from_artefact(artefact, clip, PLAIN)
    np.testing.assert_array_equal(fold(artefact, clip), prompt.class_vectors().detach().numpy())
