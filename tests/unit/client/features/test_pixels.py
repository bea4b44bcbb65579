import numpy as np
import pytest

from client.features.encode import read_pixels
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.image_set import image_set
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import DataError
from tests.unit.client.features.test_encode import Memory, images

SHAPE = (32, 32, 3)  # as the tower takes them: nothing is resized


def exact(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


def test_chosen_images_come_in_the_order_asked_pixel_for_pixel() -> None:
    contents = [b"P6 32 32 255\n" + exact(seed).tobytes() for seed in range(4)]
    photos = image_set(("cat", "dog"), [0, 1, 0, 1], Memory(contents))
    found = read_pixels(photos, [3, 0, 3], Preprocessing(size=32), 32 * 32)
    assert np.array_equal(found.numpy(), np.stack([exact(3), exact(0), exact(3)]))


def test_every_size_is_brought_to_the_towers(clip: FrozenClip) -> None:
    found = read_pixels(images(1, 2), [0, 1], clip.preprocessing, 10**6)
    assert tuple(found.shape) == (2, *SHAPE)


def test_an_image_of_too_many_pixels_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(DataError):
        read_pixels(images(1), [0], clip.preprocessing, 40 * 36 - 1)
