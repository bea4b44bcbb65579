from pathlib import Path

import numpy as np
import pytest
import torch

from client.features import encode as module
from client.features.encode import ComputedRows, image_rows
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.folder import read_folder
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.data.preprocess import fit_to_input
from tests.pictures import image_folder

LIMIT = 10**6


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    splits = read_folder(image_folder(tmp_path / "photos", ("cat", "dog"), 4))
    return image_set(splits.classes, splits.train.labels, splits.train.source)


def by_hand(photos: ImageSet, clip: FrozenClip, layer: int) -> torch.Tensor:
    pixels = [
        fit_to_input(decode(photos.content(i)), clip.preprocessing) for i in range(len(photos))
    ]
    images = clip.normalise(torch.from_numpy(np.stack(pixels)))
    seen: list[torch.Tensor] = []
    block = clip.model.visual.transformer.resblocks[layer]
    hook = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip.model.encode_image(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_rows_are_what_enters_the_block(
    photos: ImageSet, clip: FrozenClip, layer: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    rows = image_rows(photos, clip, layer, 3, max_pixels=LIMIT)
    assert isinstance(rows, torch.Tensor) is kept
    assert isinstance(rows, ComputedRows) is not kept
    chosen = torch.tensor([5, 0, 2])
    expected = by_hand(photos, clip, layer)[chosen]
    torch.testing.assert_close(rows[chosen], expected, rtol=1e-4, atol=1e-5)
    assert not rows[chosen].requires_grad


def test_a_site_without_images_has_no_rows(photos: ImageSet, clip: FrozenClip) -> None:
    rows = image_rows(photos.subset([]), clip, 0, 3, max_pixels=LIMIT)
    assert rows[torch.zeros(0, dtype=torch.int64)].shape == (0, 1, 48)
