"""Resize an image to what a CLIP tower takes, with open_clip's own arithmetic.

Equal bit for bit to `open_clip.image_transform(is_train=False)` before normalisation, for RGB
images. numpy and Pillow only: the edge runtime imports this file.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedprompt.errors import DataError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RESIZE_MODES = ("shortest", "squash", "longest")
_MAX_RESIZED_PIXELS = 64_000_000  # a 1 x 100,000 strip would grow to 15 GB before its crop


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """State how pixels become a tower's input; travels in artefacts and in ONNX metadata.

    Attributes
    ----------
    size
        Height and width of the input, in pixels.
    mean, std
        Of each channel, on the scale 0 to 1.
    interpolation
        ``bicubic`` or ``bilinear``.
    resize_mode
        ``shortest`` (then centre crop), ``squash`` (aspect lost) or ``longest`` (then pad).
    fill
        Grey level of the padding, 0 to 255; used by ``longest`` only.
    """

    size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill: int = 0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channels(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise DataError(f"preprocessing std = {self.std}; expected three numbers above 0")
        for name, highest, lowest in (("size", 4096, 1), ("fill", 255, 0)):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise DataError(
                    f"preprocessing {name} = {value!r}; expected an integer "
                    f"from {lowest} to {highest}"
                )
        for name, allowed in (("interpolation", tuple(_FILTERS)), ("resize_mode", _RESIZE_MODES)):
            if getattr(self, name) not in allowed:
                raise DataError(
                    f"preprocessing {name} = {getattr(self, name)!r}; "
                    f"expected one of {', '.join(allowed)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, inverse of `from_dict`."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` wrote.

        Raises
        ------
        DataError
            A key is missing or unknown, or a value is out of range.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise DataError(
                f"preprocessing has the keys {', '.join(sorted(map(str, values)))}; "
                f"expected {', '.join(sorted(expected))}"
            )
        return cls(**values)


def fit_to_input(image: npt.NDArray[np.uint8], pre: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize, then crop or pad at the centre, as open_clip does.

    Parameters
    ----------
    image
        uint8 [height width 3], as `fedprompt.data.decode.decode` gives it.

    Returns
    -------
    uint8 [size size 3]
    """
    pillow = Image.fromarray(np.ascontiguousarray(image))
    width, height = _resized(pillow.width, pillow.height, pre)
    if width * height > _MAX_RESIZED_PIXELS:
        return np.array(_resize_centre(pillow, pre))
    if (width, height) != pillow.size:
        pillow = pillow.resize((width, height), _FILTERS[pre.interpolation])
    return np.array(_centre(pillow, pre))


def _resized(width: int, height: int, pre: Preprocessing) -> tuple[int, int]:
    if pre.resize_mode == "squash":
        return pre.size, pre.size
    if pre.resize_mode == "longest":
        ratio = max(height / pre.size, width / pre.size)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    long = int(pre.size * max(width, height) / min(width, height))
    return (pre.size, long) if width <= height else (long, pre.size)


def _centre(image: Image.Image, pre: Preprocessing) -> Image.Image:
    """Crop what is too long, pad what is too short; the halves rounded as torchvision rounds."""
    left, top = (_offset(length, pre.size) for length in image.size)
    if image.size == (pre.size, pre.size):
        return image
    if min(image.size) >= pre.size:
        return image.crop((left, top, left + pre.size, top + pre.size))
    canvas = Image.new("RGB", (pre.size, pre.size), (pre.fill,) * 3)
    canvas.paste(image, (-left, -top))
    return canvas


def _offset(length: int, size: int) -> int:
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _resize_centre(image: Image.Image, pre: Preprocessing) -> Image.Image:
    """Resize only the square that the crop keeps of a very long image."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((pre.size, pre.size), _FILTERS[pre.interpolation], box=box)


def _channels(name: str, values: Any) -> tuple[float, ...]:
    try:
        channels = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        channels = ()
    if len(channels) != 3 or not all(map(math.isfinite, channels)):
        raise DataError(f"preprocessing {name} = {values!r}; expected three finite numbers")
    return channels
