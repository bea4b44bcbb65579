"""Turn image bytes into pixels by the one rule that training, simulation and the edge share (F27).

The rule, in order: first frame; EXIF orientation applied; 16-bit grey scaled by 1/257 (never
clipped); transparency laid on white; palette, grey, CMYK and YCbCr to RGB. Colour profiles are
ignored, as open_clip ignores them. Floating-point and 32-bit integer images have no white level
and are refused. numpy and Pillow only: the edge runtime imports this file.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fedprompt.errors import ConfigError, DataError

# No format that starts another program (EPS), and none whose decoder nobody needs here.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # 192 MB of RGB
PILLOW_MAX_PIXELS = 178_956_970  # Pillow refuses more by itself

_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(content: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Return the pixels of one encoded image.

    Parameters
    ----------
    content
        The bytes of a BMP, GIF, JPEG, PNG, PNM, TIFF or WebP file.
    max_pixels
        Width times height above which the image is refused before memory is taken for it.

    Returns
    -------
    uint8 [height width 3], RGB, writable.

    Raises
    ------
    DataError
        The bytes are no image, corrupt, truncated, empty, too large or without a white level.
    """
    try:
        with _pillow_silent(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            return np.array(_to_rgb(_upright(image)))
    except DataError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly any type on hostile bytes
        raise DataError(_explain(content, error)) from error


def checked_pixels(most: int) -> int:
    """Return a bound on the pixels of an image.

    Raises
    ------
    ConfigError
        It is below 1, or above what Pillow takes.
    """
    if not 1 <= most <= PILLOW_MAX_PIXELS:
        raise ConfigError(
            f"max_pixels = {most}; expected 1 to {PILLOW_MAX_PIXELS}, above which Pillow refuses"
        )
    return most


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError(f"the image is {width} x {height} pixels; expected at least 1 x 1")
    if width * height > max_pixels:
        raise DataError(
            f"the image is {width} x {height} pixels, more than max_pixels = {max_pixels}; "
            "make it smaller, or raise the bound: data.max_pixels of a run, --pixels of "
            "`fedprompt predict` and `serve`"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block leaves good pixels, which viewers show unturned
        return image
    turn = _TURN.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GREY_16 or (image.mode == "I" and image.format == "PPM"):
        return _from_grey_16(image)
    if image.mode in ("I", "F"):
        raise DataError(
            f"the image has {image.mode}-mode pixels (32 bits), which have no white level; "
            "convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_grey_16(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.uint32)
    grey = ((wide + 128) // 257).astype(np.uint8)  # 65,535 = 255 * 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[wide == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _explain(content: bytes, error: Exception) -> str:
    if not content:
        return "the image is an empty file; replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return f"the {len(content)} bytes are no image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"the image is a decompression bomb: {error}"
    reason = str(error).strip() or type(error).__name__
    return f"the image could not be decoded ({reason}); replace or remove it"


_quiet_lock = threading.Lock()
_quiet = contextlib.ExitStack()
_quiet_users = 0


@contextlib.contextmanager
def _pillow_silent() -> Iterator[None]:
    """Ignore Pillow's warnings while any thread decodes: the pixels decide, not the filters.

    `warnings.catch_warnings` is process-wide, so the first thread in enters it and the last out
    leaves it; otherwise interleaved threads would restore each other's filters.
    """
    global _quiet_users
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet.close()
