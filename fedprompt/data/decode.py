"""Turn image bytes into pixels by the one rule that training, simulation and the edge share (F27).

The rule, in order: first frame; EXIF orientation applied; 16-bit grey scaled to 8 bits, the white
level to 255; transparency laid on white; palette, grey, CMYK and YCbCr to RGB. Colour profiles are
ignored, as open_clip ignores them. Floating-point, signed and 32-bit images have no white level and
are refused. DICOM has a rule of its own (`fedprompt.data.dicom`). numpy and Pillow only: the edge
runtime imports this file. HEIC and DICOM are read where pillow-heif and pydicom are installed.
"""

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

from fedprompt.data.dicom import decode_dicom, is_dicom
from fedprompt.errors import ConfigError, DataError

# No format that starts another program (EPS), and none whose decoder nobody needs here.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # 192 MB of RGB
PILLOW_MAX_PIXELS = 178_956_970  # Pillow refuses more by itself
RULE = 3  # one more whenever the same bytes decode to other pixels
MAX_WHITE = 65_535  # of 16 bits
HEIC_INSTALL = "pip install 'fedprompt[images]'"
FAINT = 16  # an image that uses less than this part of its levels is noted

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_PLANAR, _PLANES, _SIGNED = 284, 2, 2  # one tag more, and values of two
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PAGED = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # those of MPO and HEIF are views of one picture
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

Rgb = npt.NDArray[np.uint8]  # [height width 3]


# faint: no level of 16 bits reaches a sixteenth of white, a sign of 12 bits in a file of 16
# flat: a DICOM image is shown in less than a sixteenth of the levels, though its values differ
# pages: other pictures stand behind the one that is read
Doubt = Literal["faint", "flat", "pages"]


class Decoded(NamedTuple):
    """Hold the pixels of an image, and what a person should look at.

    Attributes
    ----------
    pixels
        uint8 [height width 3], RGB, writable.
    doubts
        Signs that the image may be meant in another way.
    """

    pixels: Rgb
    doubts: tuple[Doubt, ...]


def decode(content: bytes, *, max_pixels: int = MAX_PIXELS, white_level: int = 0) -> Rgb:
    """Return the pixels of one encoded image.

    Parameters
    ----------
    content
        The bytes of an AVIF, BMP, DICOM, GIF, HEIC, JPEG, PNG, PNM, TIFF or WebP file.
    max_pixels
        Width times height above which the image is refused before memory is taken for it.
    white_level
        The level of 16-bit grey that is white, and all above it; 0 is the highest of the type:
        65,535, or 4,095 of a TIFF of 12 bits. Images of 8 bits are as they are.

    Returns
    -------
    uint8 [height width 3], RGB, writable.

    Raises
    ------
    DataError
        The bytes are no image, corrupt, truncated, empty, too large or without a white level; or
        the format needs a package that is not installed.
    """
    return decode_and_judge(content, max_pixels=max_pixels, white_level=white_level).pixels


def decode_and_judge(content: bytes, *, max_pixels: int, white_level: int = 0) -> Decoded:
    """Return the pixels of one encoded image, and what is doubtful; else as `decode`."""
    try:
        with _pillow_silent():
            if is_dicom(content):
                shown, is_flat = decode_dicom(content, max_pixels)
                return Decoded(shown, ("flat",) if is_flat else ())
            with Image.open(io.BytesIO(content), formats=formats()) as image:
                _check_size(image, max_pixels)
                _check_tiff(image)
                deep_colour = _has_deep_colour(image)
                if deep_colour and white_level not in (0, MAX_WHITE):
                    raise DataError(
                        "the image has colours of 16 bits, of which Pillow keeps the upper 8, so "
                        f"the white level {white_level} cannot apply; convert it to 8 bits"
                    )
                white = _white(image, white_level)
                has_pages = image.format in _PAGED and getattr(image, "is_animated", False)
                image.load()
                upright = _upright(image)
                if _is_grey_16(upright):
                    pixels, is_faint = _from_grey_16(upright, white, image)
                else:
                    pixels = np.array(_to_rgb(upright))
                    is_faint = deep_colour and 0 < int(pixels.max()) < 256 // FAINT
                found: dict[Doubt, bool] = {"faint": is_faint, "pages": has_pages}
                return Decoded(pixels, tuple(doubt for doubt, holds in found.items() if holds))
    except DataError:
        raise
    except Exception as error:  # parsers raise nearly any type on hostile bytes
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


@functools.cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read here."""
    found: tuple[str, ...] = FORMATS
    if features.check("avif"):
        from PIL import AvifImagePlugin  # noqa: F401 - registers itself

        found += ("AVIF",)
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
        found += ("HEIF",)
    return found


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


def _check_tiff(image: Image.Image) -> None:
    """Refuse what Pillow takes for something else, without a word."""
    if _tiff(image, _SAMPLE_FORMAT, 1) == _SIGNED:
        raise _no_white_level(image)
    bits = _tiff(image, _BITS_PER_SAMPLE, 8)
    if _tiff(image, _PLANAR, 1) == _PLANES and len(image.getbands()) > 1 and bits > 8:
        raise DataError(
            f"the image is a TIFF that keeps colours of {bits} bits in planes of their own, which "
            "Pillow does not read; convert it to PNG"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block leaves good pixels, which viewers show unturned
        return image
    turn = _TURN.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _is_grey_16(image: Image.Image) -> bool:
    return image.mode in _GREY_16 or (image.mode == "I" and image.format == "PPM")


def _has_deep_colour(image: Image.Image) -> bool:
    """Say whether colours of 16 bits will be cut to 8; only the raw mode tells."""
    modes = (str(tile.args) for tile in getattr(image, "tile", ()))
    return image.mode not in _GREY_16 and any(";16" in mode for mode in modes)


def _white(image: Image.Image, white_level: int) -> int:
    """Return the level of 16-bit grey that is white.

    PNM and HEIF state their own, which their readers stretch to 16 bits.
    """
    if image.format == "HEIF" or any(
        str(tile.codec_name).startswith("ppm") for tile in getattr(image, "tile", ())
    ):
        return MAX_WHITE
    bits = _tiff(image, _BITS_PER_SAMPLE, 16)
    return white_level or (2**bits - 1 if bits < 16 else MAX_WHITE)


def _tiff(image: Image.Image, tag: int, default: int) -> int:
    """Return the first value of a tag of a TIFF; other formats have none."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise _no_white_level(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _no_white_level(image: Image.Image) -> DataError:
    return DataError(
        f"the image has {_kind(image)} pixels, which have no white level; convert it to unsigned "
        "ones of 8 or 16 bits"
    )


def _kind(image: Image.Image) -> str:
    if image.mode == "F":
        return "floating-point"
    bits = _tiff(image, _BITS_PER_SAMPLE, 32)
    signed = "signed " if _tiff(image, _SAMPLE_FORMAT, 1) == _SIGNED else ""
    return f"{signed}{bits}-bit"


def _from_grey_16(image: Image.Image, white: int, file: Image.Image) -> tuple[Rgb, bool]:
    """Return the pixels, and whether they are faint."""
    wide = np.asarray(image).astype(np.uint32)
    is_faint = 0 < int(wide.max()) * FAINT <= white
    levels = np.minimum(wide, white)
    if _tiff(file, _PHOTOMETRIC, 1) == 0:  # WhiteIsZero, which Pillow turns over for 8 bits alone
        levels = white - levels
    grey = ((levels * 255 + white // 2) // white).astype(np.uint8)
    transparent = file.info.get("transparency")
    if isinstance(transparent, int):
        grey[wide == transparent] = 255
    return np.repeat(grey[..., None], 3, axis=-1), is_faint


def _explain(content: bytes, error: Exception) -> str:
    if not content:
        return "the image is an empty file; replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(content)
    if isinstance(error, Image.DecompressionBombError):
        return f"the image is a decompression bomb: {error}"
    reason = str(error).strip() or type(error).__name__
    return f"the image could not be decoded ({reason}); replace or remove it"


def _unidentified(content: bytes) -> str:
    """Say what bytes are that no format here opens, as far as their beginning tells."""
    known = ", ".join(formats())
    brand = content[8:12] if content[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS and "HEIF" not in formats():
        return f"the image is HEIC, which needs pillow-heif: {HEIC_INSTALL}"
    if brand in (b"avif", b"avis") and "AVIF" not in formats():
        return "the image is AVIF, which this Pillow was built without; install Pillow's own wheel"
    if content.startswith(b"version https://git-lfs"):
        return "the file is a pointer of Git LFS, not the image; run git lfs pull"
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "the image is a TIFF of a kind that Pillow does not read; convert it to PNG"
    return f"the {len(content)} bytes are no image of a known format ({known})"


_quiet_lock = threading.Lock()
_quiet = contextlib.ExitStack()
_quiet_users = 0


@contextlib.contextmanager
def _pillow_silent() -> Iterator[None]:
    """Ignore the decoders' warnings while any thread decodes: the pixels decide, not the filters.

    `warnings.catch_warnings` is process-wide, so the first thread in enters it and the last out
    leaves it; otherwise interleaved threads would restore each other's filters.
    """
    global _quiet_users
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|pydicom)\b")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet.close()
