"""A hundred encoded images: every format, colour mode and turn that a browser reads."""

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Photo:
    name: str
    content: bytes


def hundred() -> list[Photo]:
    """Return the same images at every call."""
    return list(itertools.islice(_photos(), 100))


def _photos() -> Iterator[Photo]:
    for number in itertools.count():
        for name, save in _KINDS.items():
            yield Photo(f"{name}-{number}", save(scene(number * len(_KINDS) + len(name)), number))


def scene(seed: int) -> Image.Image:
    """Draw smooth colours with hard-edged discs and noise, 48 to 320 pixels a side."""
    rng = np.random.default_rng(seed)
    height, width = (int(2 ** rng.uniform(5.6, 8.3)) for _ in range(2))
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = rng.uniform(-9, 9, (3, 2))
    pixels = 128 + 110 * np.sin(
        np.tensordot(waves, np.stack([x, y]), 1) + rng.uniform(0, 6, (3, 1, 1))
    )
    for _ in range(6):
        left, top, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.3)
        disc = (x - left) ** 2 + (y - top) ** 2 < radius**2
        pixels[:, disc] = rng.uniform(0, 255, (3, 1))
    pixels += rng.normal(0, 6, pixels.shape)
    return Image.fromarray(np.moveaxis(pixels, 0, -1).clip(0, 255).astype(np.uint8))


def _with_alpha(image: Image.Image) -> Image.Image:
    ramp = np.linspace(0, 255, image.width).astype(np.uint8)
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    return image


def _turned(image: Image.Image, number: int) -> Image.Exif:
    exif = image.getexif()
    exif[ORIENTATION] = number % 8 + 1
    return exif


def foreign_profile() -> bytes:
    """Return a colour profile that swaps red and green: who obeys it shows other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _grey_16(image: Image.Image) -> Image.Image:
    wide: npt.NDArray[np.uint16] = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return Image.fromarray(wide)


_KINDS: dict[str, Callable[[Image.Image, int], bytes]] = {
    "jpeg": lambda i, n: _encode(i, "JPEG", quality=92),
    "jpeg-444": lambda i, n: _encode(i, "JPEG", quality=80, subsampling=0),
    "jpeg-progressive": lambda i, n: _encode(i, "JPEG", quality=70, progressive=True),
    "jpeg-grey": lambda i, n: _encode(i.convert("L"), "JPEG", quality=85),
    "jpeg-turned": lambda i, n: _encode(i, "JPEG", quality=90, exif=_turned(i, n)),
    "jpeg-profile": lambda i, n: _encode(i, "JPEG", quality=90, icc_profile=foreign_profile()),
    "png": lambda i, n: _encode(i, "PNG"),
    "png-alpha": lambda i, n: _encode(_with_alpha(i), "PNG"),
    "png-palette": lambda i, n: _encode(i.quantize(32), "PNG", transparency=3),
    "png-grey-16": lambda i, n: _encode(_grey_16(i), "PNG"),
    "png-turned": lambda i, n: _encode(i, "PNG", exif=_turned(i, n)),
    "png-profile": lambda i, n: _encode(i, "PNG", icc_profile=foreign_profile()),
    "webp": lambda i, n: _encode(i, "WEBP", quality=90),
    "webp-alpha": lambda i, n: _encode(_with_alpha(i), "WEBP", lossless=True, exact=True),
    "webp-turned": lambda i, n: _encode(
        i, "WEBP", lossless=True, exif=_turned(i, n), icc_profile=foreign_profile()
    ),
    "gif": lambda i, n: _encode(i, "GIF"),
    "gif-animated": lambda i, n: _encode(
        i, "GIF", save_all=True, append_images=[i.rotate(180)], duration=50, loop=0
    ),
    "bmp": lambda i, n: _encode(i, "BMP"),
    "bmp-palette": lambda i, n: _encode(i.quantize(64), "BMP"),
    "bmp-grey": lambda i, n: _encode(i.convert("L"), "BMP"),
}
