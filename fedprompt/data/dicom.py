"""Turn a DICOM file into pixels as its own window says; the only door to pydicom (extra ``dicom``).

The rule, in order: the modality's values (rescale slope and intercept, or its table); the file's
first window or VOI table, else the whole range of the stored bits; MONOCHROME1 inverted; palettes
and YBR to RGB. In an enhanced file these stand in its functional groups. A file of several frames
is refused, for no single one stands for a volume or a film; so is one whose tags contradict each
other. Pixels are read natively, from RLE, and from what the installed plug-ins of pydicom decode.

Source: DICOM PS3.3, C.7.6.3 (image pixel), C.11.1 (modality LUT) and C.11.2 (VOI LUT).
"""

import io
import math
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

INSTALL = "pip install 'fedprompt[dicom]'"
_DEFLATED = re.compile(rb"(?<![\d.])1\.2\.840\.10008\.1\.2\.1\.99(?![\d.])")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_BITS = (8, 16)
_NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_OF_A_FRAME = frozenset(
    ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction")
)
_MOST = 1e12  # of a rescale slope or intercept; beyond, float32 overflows
_FLAT = 16  # an image that is shown in less than this part of the grey levels is noted

Levels = npt.NDArray[np.float32]


def reads_dicom() -> bool:
    """Say whether pydicom is installed."""
    return find_spec("pydicom") is not None


def is_dicom(content: bytes) -> bool:
    """Say whether bytes begin as a DICOM file of part 10 does."""
    return content[128:132] == b"DICM"


def decode_dicom(content: bytes, max_pixels: int) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return the pixels of a DICOM file of one frame, uint8 [height width 3], and a doubt.

    The doubt is whether values that differ are shown in less than a sixteenth of the grey levels.

    Raises
    ------
    DataError
        pydicom or a plug-in for the file's compression is missing, or the file holds no single
        image of at most ``max_pixels``.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise DataError(f"the image is DICOM, which needs pydicom: {INSTALL}") from None
    if _DEFLATED.search(content):  # pydicom would inflate it without a bound
        raise DataError("the DICOM file is deflated as a whole; convert it with dcmconv +te")
    data = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in data:
        raise DataError("the DICOM file holds no image (no PixelData); remove it")
    _check_shape(data, max_pixels)
    _check_bits(data)
    _check_compression(data)
    _take_functional_groups(data)
    pixels = pixel_array(data, index=0)
    shown = _shown(data, pixels)
    return shown, _is_flat(data, pixels, shown)


def _check_shape(data: "FileDataset", max_pixels: int) -> None:
    lacking = [name for name in _NEEDED if data.get(name) is None]
    if lacking:
        raise DataError(f"the DICOM file lacks {', '.join(lacking)}; write it again, or remove it")
    rows, columns, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
    if rows < 1 or columns < 1 or rows * columns > max_pixels:
        raise DataError(
            f"the image is {columns} x {rows} pixels; expected at least 1 x 1 and at most "
            f"max_pixels = {max_pixels}"
        )
    if frames != 1:
        raise DataError(
            f"the DICOM file holds {frames} frames; write each image to a file of its own"
        )
    kind, bits = str(data.PhotometricInterpretation), int(data.BitsAllocated)
    if kind not in (*_GREY, *_COLOUR, "PALETTE COLOR") or bits not in _BITS:
        raise DataError(
            f"the DICOM image is {kind} in {bits} bits; expected grey or colour in 8 or 16"
        )


def _check_bits(data: "FileDataset") -> None:
    """Refuse tags that contradict each other or the pixels, of which pydicom would believe one."""
    kind, samples = str(data.PhotometricInterpretation), int(data.SamplesPerPixel)
    stored, allocated = int(data.BitsStored), int(data.BitsAllocated)
    high = int(data.get("HighBit", stored - 1))
    wrong = ""
    if samples != (3 if kind in _COLOUR else 1):
        wrong = f"{samples} samples a pixel for {kind}"
    elif not 1 <= stored <= allocated or high != stored - 1:
        wrong = f"{stored} bits stored of {allocated}, up to bit {high}"
    elif kind == "MONOCHROME2" and str(data.get("PresentationLUTShape") or "") == "INVERSE":
        wrong = "MONOCHROME2 (0 is black) and the shape INVERSE (0 is white)"
    elif not data.file_meta.TransferSyntaxUID.is_compressed:
        whole = int(data.Rows) * int(data.Columns) * samples * allocated // 8
        if len(data.PixelData) >= 2 * whole:
            wrong = f"{len(data.PixelData)} bytes of pixels for one image of {whole}"
    if wrong:
        raise DataError(f"the DICOM file states {wrong}; write it again, or remove it")


def _take_functional_groups(data: "FileDataset") -> None:
    """Copy window and modality of an enhanced file of one frame to where other files have them."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (data.get(groups) or [])[:1]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for stated in (group.get(macro) or [])[:1]:
                    for name in _OF_A_FRAME & set(stated.dir()):
                        data[name] = stated[name]


def _is_flat(data: "FileDataset", pixels: npt.NDArray[Any], shown: npt.NDArray[np.uint8]) -> bool:
    """Say whether differing values, padding left out, are shown nearly as one grey."""
    if str(data.PhotometricInterpretation) not in _GREY:
        return False
    real = pixels != data.get("PixelPaddingValue", None)
    values, levels = pixels[real], shown[..., 0][real]
    return bool(values.size and np.ptp(values) and np.ptp(levels) <= 256 // _FLAT)


def _check_compression(data: "FileDataset") -> None:
    """Refuse what no plug-in here decodes, and streams of another size than the file states."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import RLELossless

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    if not get_decoder(syntax).is_available:
        raise DataError(
            f"the DICOM image is compressed as {syntax.name}, which nothing here decodes; install "
            "pydicom's plug-in for it (pylibjpeg with pylibjpeg-libjpeg and pylibjpeg-openjpeg, or "
            "pyjpegls for JPEG-LS), or convert the files with gdcmconv --raw"
        )
    whole = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel) * data.BitsAllocated // 8
    stream = next(generate_frames(data.PixelData, number_of_frames=1))
    if syntax == RLELossless:
        fits = len(stream) <= 2 * whole + 4096  # more is no packing, and unpacks to anything
    else:
        fits = _size(stream) == (int(data.Columns), int(data.Rows))
    if not fits:
        raise DataError(
            f"the DICOM image states {data.Columns} x {data.Rows} pixels, and its compressed data "
            "another size; replace or remove it"
        )


def _size(stream: bytes) -> tuple[int, int] | None:
    """Return width and height as a JPEG or JPEG 2000 stream states them; None of other kinds."""
    if stream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ
        x, y, x0, y0 = (int.from_bytes(stream[i : i + 4], "big") for i in (8, 12, 16, 20))
        return x - x0, y - y0
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height = int.from_bytes(stream[place + 5 : place + 7], "big")
            return int.from_bytes(stream[place + 7 : place + 9], "big"), height
        place += 2 + length
    return None


def _shown(data: "FileDataset", pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return what a viewer shows of decoded values: uint8 [height width 3]."""
    from pydicom.pixels.processing import apply_color_lut

    kind = str(data.PhotometricInterpretation)
    if kind in _GREY:
        levels = _windowed(data, pixels)
        levels = 1 - levels if kind == "MONOCHROME1" else levels
        return np.repeat(_to_bytes(levels)[..., None], 3, axis=-1)
    if kind == "PALETTE COLOR":
        white = 2 ** (int(data.RedPaletteColorLookupTableDescriptor[2])) - 1
        return _to_bytes(np.asarray(apply_color_lut(pixels, data)[..., :3], np.float32) / white)
    return _to_bytes(np.asarray(pixels, np.float32) / (2 ** int(data.BitsStored) - 1))


def _windowed(data: "FileDataset", pixels: npt.NDArray[Any]) -> Levels:
    """Return grey levels from 0 (black) to 1 (white), by the first window of the file."""
    if data.get("ModalityLUTSequence"):
        values, white = _looked_up(pixels, data.ModalityLUTSequence[0])
        lowest, highest = 0.0, float(white)
    else:
        slope, intercept = _number(data, "RescaleSlope", 1), _number(data, "RescaleIntercept", 0)
        if slope == 0:
            raise DataError("the DICOM file has RescaleSlope 0, which makes all values one")
        bits, signed = int(data.BitsStored), bool(data.PixelRepresentation)
        values = pixels
        if (slope, intercept) != (1, 0):
            values = np.asarray(pixels, np.float32) * np.float32(slope) + np.float32(intercept)
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        lowest, highest = sorted(end * slope + intercept for end in ends)
    if data.get("VOILUTSequence"):
        shown, white = _looked_up(np.rint(values).astype(np.int64), data.VOILUTSequence[0])
        return shown / np.float32(white)
    values = np.asarray(values, np.float32)
    if data.get("WindowWidth") is None or data.get("WindowCenter") is None:
        return (values - np.float32(lowest)) / np.float32(highest - lowest)
    centre, width = (_first(data[name].value) for name in ("WindowCenter", "WindowWidth"))
    return _window(values, centre, width, str(data.get("VOILUTFunction") or "LINEAR"))


def _number(data: "FileDataset", name: str, usual: float) -> float:
    value = data.get(name)
    found = usual if value is None else float(value)
    if not abs(found) < _MOST:
        raise DataError(f"the DICOM file has {name} {found:g}; expected a number of usual size")
    return found


def _looked_up(values: npt.NDArray[Any], table: "Dataset") -> tuple[Levels, int]:
    """Return what a table makes of whole numbers, and its highest level; C.11.1.1 and C.11.2.1.1.

    Numbers before the first entry become it, those behind the last one become that.
    """
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    entries = table.LUTData
    if isinstance(entries, bytes):
        entries = np.frombuffer(entries, "<u2" if len(entries) >= 2 * (count or 65536) else "u1")
    levels = np.asarray(entries, np.float32).reshape(-1)
    if first > 32767 and values.min(initial=0) < 0:  # a signed number, written as if it were none
        first -= 65536
    place = np.clip(values.astype(np.int64) - first, 0, len(levels) - 1)
    return np.asarray(levels[place], np.float32), 2**bits - 1


def _first(value: Any) -> float:
    """Return the first window of several, the one that viewers open with."""
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _window(values: Levels, centre: float, width: float, function: str) -> Levels:
    """Apply a window; PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    least = 1 if function == "LINEAR" else 0
    if not (math.isfinite(centre) and math.isfinite(width)) or width < least or width == 0:
        raise DataError(f"the DICOM window is {width:g} wide around {centre:g}; expected a width")
    if function == "LINEAR":
        return (values - np.float32(centre - 0.5)) / np.float32(max(width - 1, 1e-6)) + 0.5
    if function == "LINEAR_EXACT":
        return (values - np.float32(centre)) / np.float32(width) + 0.5
    if function == "SIGMOID":
        steep = np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -80, 80)
        return np.asarray(1 / (1 + np.exp(steep)), np.float32)
    raise DataError(f"the DICOM window is of kind {function!r}; expected a linear one or SIGMOID")


def _to_bytes(levels: Levels) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
