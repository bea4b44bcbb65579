import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fedprompt.errors import ConfigError
from fedprompt.experiments.corruption import CORRUPTIONS, STRENGTHS, corrupt


def picture(height: int = 64, width: int = 80) -> np.ndarray:
    """Return a scene: a slope, a disc, stripes and a little grain."""
    y, x = np.mgrid[:height, :width]
    disc = 255 * ((y - 30) ** 2 + (x - 40) ** 2 < 300)
    pixels = np.stack([x * 3, disc, 128 + 100 * np.sign(np.sin(x / 3))], -1)
    grain = np.random.default_rng(0).normal(scale=8, size=pixels.shape)
    return (pixels + grain).clip(0, 255).astype(np.uint8)


def damage(image: np.ndarray, kind: str, strength: int) -> float:
    spoilt = corrupt(image, kind, strength, np.random.default_rng(1))
    return float(((spoilt.astype(float) - image) ** 2).mean())


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(64, 80), (33, 17)])
def test_shape_and_type_stay_and_the_image_itself_is_left_alone(
    kind: str, shape: tuple[int, int]
) -> None:
    image = picture(*shape)
    before = image.copy()
    for strength in STRENGTHS:
        found = corrupt(image, kind, strength, np.random.default_rng(0))
        assert (found.shape, found.dtype) == (image.shape, np.uint8)
        assert found is not image
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_equal_generators_give_equal_bytes(kind: str) -> None:
    one, other = (corrupt(picture(), kind, 3, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, other)
    different = corrupt(picture(), kind, 3, np.random.default_rng(8))
    assert np.array_equal(one, different) == (kind != "noise")


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(64, 80), (120, 112)])
def test_damage_grows_with_strength(kind: str, shape: tuple[int, int]) -> None:
    found = [damage(picture(*shape), kind, strength) for strength in STRENGTHS]
    assert found[0] > 0
    assert all(more > less for less, more in itertools.pairwise(found))


def test_noise_has_the_published_deviation() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    for strength, deviation in zip(STRENGTHS, (0.08, 0.12, 0.18), strict=False):
        found = corrupt(grey, "noise", strength, np.random.default_rng(0)) / 255
        assert found.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("size", "widths"), [(224, (1, 2, 3, 4, 6)), (112, (0.5, 1, 1.5, 2, 3))])
def test_blur_is_a_gaussian_whose_width_follows_the_image(
    size: int, widths: tuple[float, ...]
) -> None:
    image = picture(size, size + 9)
    for strength, width in zip(STRENGTHS, widths, strict=True):
        channels = [
            ndimage.gaussian_filter(image[..., c].astype(float), width, mode="nearest")
            for c in range(3)
        ]
        found = corrupt(image, "blur", strength, np.random.default_rng(0))
        assert np.abs(found - np.stack(channels, -1)).max() < 0.51  # rounded to bytes


def test_jpeg_is_pillows_at_the_published_quality() -> None:
    for strength, quality in zip(STRENGTHS, (25, 18, 15, 10, 7), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, "JPEG", quality=quality)
        found = corrupt(picture(), "jpeg", strength, np.random.default_rng(0))
        assert np.array_equal(found, np.asarray(Image.open(buffer)))


def test_contrast_keeps_the_mean_and_a_share_of_the_deviation() -> None:
    for strength, share in zip(STRENGTHS, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        found = corrupt(picture(), "contrast", strength, np.random.default_rng(0)).astype(float)
        for c in range(3):
            own = picture()[..., c].astype(float)
            expected = own.mean() + share * (own - own.mean())
            assert np.abs(found[..., c] - expected).max() < 0.51


@pytest.mark.parametrize(("kind", "strength"), [("fog", 1), ("blur", 0), ("blur", 6)])
def test_an_unknown_kind_or_strength_is_refused(kind: str, strength: int) -> None:
    with pytest.raises(ConfigError, match="expected one of noise, blur, jpeg, contrast"):
        corrupt(picture(), kind, strength, np.random.default_rng(0))
