"""Turn whatever a caller has into pixels, by the one decode rule (F27)."""

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedprompt.data.decode import MAX_PIXELS, decode
from fedprompt.errors import DataError

Pixels = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes | Image.Image | Pixels

_MOST = 1 << 29  # bytes of a file: 64 million pixels of 16 bits, not compressed, take fewer
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # what PNG keeps without loss


def pixels_of(
    source: Source, name: str, max_pixels: int = MAX_PIXELS, white_level: int = 0
) -> Pixels:
    """Return uint8 [height width 3] of a path, encoded bytes, a Pillow image or an array.

    Raises
    ------
    DataError
        The image cannot be read, or an array is not uint8 [height width 3].
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise DataError(
                f"{name} is an array of {source.dtype} {list(source.shape)}; expected uint8 "
                "[height width 3] in RGB"
            )
        return source
    try:
        return decode(_encoded(source), max_pixels=max_pixels, white_level=white_level)
    except OSError as error:
        raise DataError(f"{name} could not be read: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def name_of(source: Source, index: int) -> str:
    """Return a path as it was given; other sources are numbered."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image {index}"


def _encoded(source: str | os.PathLike[str] | bytes | Image.Image) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, Image.Image):
        return _read(Path(source))
    buffer = io.BytesIO()  # written without loss and read back, so that one rule decides
    kind = "PNG" if source.mode in _PNG_MODES else "TIFF"
    source.save(buffer, kind, exif=source.getexif())
    return buffer.getvalue()


def _read(path: Path) -> bytes:
    """Return a file's bytes; a device has no end, and a pipe waits for its writer."""
    size = path.stat().st_size
    if not path.is_file() or size > _MOST:
        raise DataError(
            f"it is no regular file of at most {_MOST:,} bytes (found {size:,}); give an image file"
        )
    return path.read_bytes()
