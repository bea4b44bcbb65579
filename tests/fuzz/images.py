"""Encoded images, by the one decode rule; small limits, so that every input is quick."""

import io
from typing import Any

import numpy as np
from PIL import Image

from fedprompt.data.decode import decode

CAP = 1 << 16
MAX_PIXELS = 4096


def feed(data: bytes) -> None:
    """Decode one image of at most 4,096 pixels."""
    pixels = decode(data, max_pixels=MAX_PIXELS)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise AssertionError(f"decoded to {pixels.dtype} {pixels.shape}")
    if not 1 <= pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS:
        raise AssertionError(f"decoded to {pixels.shape}")


def seeds() -> list[bytes]:
    """Return one small image of every format and mode that the rule names."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (5, 7)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "PNG", {"exif": exif}),
        (wide, "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("LA"), "PNG", {}),
        (colour.convert("1"), "PNG", {}),
        (colour, "BMP", {}),
        (colour.convert("P"), "GIF", {"transparency": 1}),
        (colour, "PPM", {}),
        (wide, "PPM", {}),
        (colour, "WEBP", {}),
        (colour.resize((16, 16)), "AVIF", {}),
        (colour, "WEBP", {"lossless": True, "exif": exif}),
        *((colour, "TIFF", {"compression": c}) for c in (None, "tiff_lzw", "jpeg", "packbits")),
        (colour.convert("CMYK"), "TIFF", {"compression": "tiff_adobe_deflate"}),
    ]
    return [_encoded(*entry) for entry in made]


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
