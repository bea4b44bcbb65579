"""Corrupt images: noise, blur, JPEG and low contrast, at five strengths.

The constants are those that ImageNet-C published for images of 224 pixels (arXiv 1903.12261;
`gaussian_noise`, `gaussian_blur`, `jpeg_compression`, `contrast`); the code is ours. Noise, JPEG's
quality and contrast have no length in them. The width of the blur has: it is scaled by the image's
shorter side over 224 (ours), so that at 28 pixels the first strengths change next to nothing.
"""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedprompt.errors import ConfigError

Picture = npt.NDArray[np.uint8]  # [height width 3]
Scaled = npt.NDArray[np.float64]  # [height width 3], 0 to 1
STRENGTHS = range(1, 6)

_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of values 0 to 1
_BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)  # standard deviation in pixels, at 224
_QUALITY = (25, 18, 15, 10, 7)  # of libjpeg
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # share of each channel's deviation from its mean
_PUBLISHED_AT = 224  # pixels
_REACH = 4  # standard deviations after which the blur is cut off, as scikit-image does


def corrupt(image: Picture, kind: str, strength: int, generator: np.random.Generator) -> Picture:
    """Return a corrupted copy of an image.

    Parameters
    ----------
    image
        uint8 [height width 3].
    kind
        A name of ``CORRUPTIONS``.
    strength
        1 to 5.
    generator
        Draws the noise; the other kinds draw nothing.

    Raises
    ------
    ConfigError
        There is no such kind or strength.
    """
    if kind not in CORRUPTIONS or strength not in STRENGTHS:
        raise ConfigError(
            f"corruption {kind!r} of strength {strength!r} is unknown; expected one of "
            f"{', '.join(CORRUPTIONS)} and a strength from 1 to 5"
        )
    return CORRUPTIONS[kind](image, strength - 1, generator)


def _noise(image: Picture, level: int, generator: np.random.Generator) -> Picture:
    """Add N(0, c) to every value."""
    return _to_bytes(image / 255 + generator.normal(scale=_NOISE[level], size=image.shape))


def _blur(image: Picture, level: int, _: np.random.Generator) -> Picture:
    """Convolve with a Gaussian; beyond the edge stands the edge."""
    width = _BLUR[level] * min(image.shape[:2]) / _PUBLISHED_AT
    reach = max(1, int(_REACH * width + 0.5))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    taps /= taps.sum()
    return _to_bytes(_along(_along(image / 255, taps, 0), taps, 1))


def _along(values: Scaled, taps: npt.NDArray[np.float64], axis: int) -> Scaled:
    """Convolve along one axis."""
    reach, length = len(taps) // 2, values.shape[axis]
    pads = [(reach, reach) if i == axis else (0, 0) for i in range(values.ndim)]
    padded = np.pad(values, pads, mode="edge")
    parts = [tap * _slice(padded, i, length, axis) for i, tap in enumerate(taps)]
    summed: Scaled = np.sum(parts, axis=0)
    return summed


def _slice(values: Scaled, start: int, length: int, axis: int) -> Scaled:
    return values[start : start + length] if axis == 0 else values[:, start : start + length]


def _jpeg(image: Picture, level: int, _: np.random.Generator) -> Picture:
    """Encode as JPEG of low quality, and decode."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY[level])
    return np.array(Image.open(buffer))


def _contrast(image: Picture, level: int, _: np.random.Generator) -> Picture:
    """Draw every channel towards its mean."""
    values = image / 255
    means = values.mean(axis=(0, 1), keepdims=True)
    return _to_bytes(means + _CONTRAST[level] * (values - means))


def _to_bytes(values: Scaled) -> Picture:
    rounded: Picture = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return rounded


CORRUPTIONS: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "contrast": _contrast,
}
