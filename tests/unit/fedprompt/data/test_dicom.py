"""DICOM by its own window; files are made here, none is anybody's."""

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from fedprompt.data import dicom
from fedprompt.data.decode import decode, decode_and_judge
from fedprompt.data.folder import read_folder
from fedprompt.errors import DataError

HOUNSFIELD = np.array([[-1024, -160, 40], [239, 240, 3000]])


def dataset(
    pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: object
) -> FileDataset:
    """Return a file of one grey image of 16 bits, tags as given."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    signed = pixels.dtype.kind == "i"
    known = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "BitsAllocated": pixels.itemsize * 8,
        "BitsStored": pixels.itemsize * 8,
        "HighBit": pixels.itemsize * 8 - 1,
        "PixelRepresentation": int(signed),
        "PixelData": pixels.tobytes(),
    }
    if pixels.ndim == 3:
        known["PlanarConfiguration"] = 0
    for name, value in (known | tags).items():
        setattr(made, name, value)
    made["PixelData"].VR = (
        "OB" if pixels.itemsize == 1 or made.file_meta.TransferSyntaxUID.is_compressed else "OW"
    )
    return made


def written(made: FileDataset) -> bytes:
    file = io.BytesIO()
    little = made.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    pydicom.dcmwrite(file, made, enforce_file_format=True, little_endian=little)
    return file.getvalue()


def grey(*arguments: object, **tags: object) -> np.ndarray:
    shown = decode(written(dataset(*arguments, **tags)))
    assert shown.dtype == np.uint8
    assert shown.flags.writeable
    assert np.array_equal(shown, np.repeat(shown[..., :1], 3, axis=-1))
    return shown[..., 0]


CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_window_of_a_ct(syntax: str) -> None:
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    expected = np.clip((HOUNSFIELD - 39.5) / 399 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(grey(stored, syntax, **CT), np.rint(expected))
    several = CT | {"WindowCenter": [40, 500], "WindowWidth": [400, 2000]}
    np.testing.assert_array_equal(grey(stored, syntax, **several), np.rint(expected))


def test_signed_values_and_big_endian() -> None:
    signed = CT | {"RescaleIntercept": 0}
    expected = grey((HOUNSFIELD + 1024).astype(np.uint16), **CT)
    np.testing.assert_array_equal(grey(HOUNSFIELD.astype(np.int16), **signed), expected)
    made = dataset(HOUNSFIELD.astype(np.int16), ExplicitVRBigEndian, **signed)
    made.PixelData = HOUNSFIELD.astype(">i2").tobytes()
    np.testing.assert_array_equal(decode(written(made))[..., 0], expected)


def test_monochrome1_is_inverted() -> None:
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    inverted = grey(stored, **CT, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(inverted, 255 - grey(stored, **CT))


def test_without_a_window_the_stored_bits_decide() -> None:
    stored = np.array([[0, 2048, 4095]], np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11}
    assert grey(stored, **bits).tolist() == [[0, 128, 255]]
    assert grey(stored, **bits, RescaleSlope=3, RescaleIntercept=-7).tolist() == [[0, 128, 255]]
    assert grey(stored, **bits, RescaleSlope=-1).tolist() == [[255, 127, 0]]
    assert grey(np.array([[-32768, 0, 32767]], np.int16)).tolist() == [[0, 128, 255]]


def test_other_functions_of_the_window() -> None:
    stored = np.array([[0, 100, 150, 200, 300]], np.uint16)
    window = {"WindowCenter": 150, "WindowWidth": 100}
    exact = grey(stored, **window, VOILUTFunction="LINEAR_EXACT")
    assert exact.tolist() == [[0, 0, 128, 255, 255]]
    sigmoid = grey(stored, **window, VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (stored.astype(float) - 150) / 100))
    np.testing.assert_array_equal(sigmoid, np.rint(expected))
    assert grey(stored, WindowCenter=150, WindowWidth=1).tolist() == [[0, 0, 255, 255, 255]]


def table(entries: list[int], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return Sequence([item])


def test_tables() -> None:
    stored = np.array([[0, 1, 2, 3, 9]], np.uint16)
    voi = {"VOILUTSequence": table([0, 10, 1000, 4095], 0, 12)}
    assert grey(stored, **voi).tolist() == [[0, 1, 62, 255, 255]]
    modality = {"ModalityLUTSequence": table([0, 4095, 2048, 0], 0, 12), "RescaleType": "US"}
    assert grey(stored, **modality).tolist() == [[0, 255, 128, 0, 0]]


def test_colour_and_palette() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(written(dataset(rgb))), rgb)
    made = dataset(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for name, values in (("Red", (0, 65535)), ("Green", (65535, 0)), ("Blue", (0, 32768))):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [2, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", np.array(values, "<u2").tobytes())
    assert decode(written(made)).tolist() == [[[0, 255, 0], [255, 0, 128]]]


def test_rle_is_read() -> None:
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    made = dataset(stored, **CT)
    made.compress(RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(decode(written(made))[..., 0], grey(stored, **CT))


STORED = np.zeros((2, 3), np.uint16)


def compressed(stream: bytes, syntax: str, **tags: object) -> FileDataset:
    made = dataset(STORED, syntax, **tags)
    made.PixelData = encapsulate([stream])
    made["PixelData"].is_undefined_length = True
    return made


def jpeg(width: int, height: int) -> bytes:
    """Return the beginning of a JPEG stream of a size."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08" + size + b"\x01\x01\x11\x00\xff\xd9"


def j2k(width: int, height: int) -> bytes:
    numbers = (width, height, 0, 0, width, height, 0, 0)
    return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"".join(n.to_bytes(4, "big") for n in numbers)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: dataset(STORED, NumberOfFrames=40, PixelData=bytes(480)), "holds 40 frames"),
        (
            lambda: dataset(STORED, Rows=60_000, Columns=60_000),
            "60000 x 60000 pixels; .*max_pixels",
        ),
        (lambda: dataset(STORED, Rows=0), "3 x 0 pixels"),
        (lambda: dataset(STORED, WindowCenter=1, WindowWidth=0), "window is 0 wide"),
        (lambda: dataset(STORED, WindowCenter=1, WindowWidth=5, VOILUTFunction="X"), "kind 'X'"),
        (lambda: dataset(STORED, PhotometricInterpretation="HSV"), "is HSV in 16 bits"),
        (lambda: dataset(STORED, PixelData=bytes(2)), "could not be decoded"),
        (lambda: compressed(jpeg(3, 2), JPEGLosslessSV1), "compressed as JPEG Lossless.*pylibjpeg"),
        (
            lambda: compressed(jpeg(60_000, 60_000), JPEGBaseline8Bit),
            "states 3 x 2 pixels, and its compressed data another size",
        ),
        (lambda: compressed(j2k(60_000, 9), JPEG2000Lossless), "compressed data another size"),
        (lambda: compressed(b"no stream", JPEGBaseline8Bit), "compressed data another size"),
        (lambda: compressed(bytes(9000), RLELossless), "compressed data another size"),
        (lambda: dataset(STORED, DeflatedExplicitVRLittleEndian), "deflated as a whole"),
    ],
)
def test_what_is_no_single_image_of_its_size_is_refused(
    made: Callable[[], FileDataset], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        decode(written(made()))


TWELVE_BITS = np.linspace(0, 4095, 16).astype(np.uint16).reshape(4, 4)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"BitsStored": 12, "HighBit": 15}, "12 bits stored of 16, up to bit 15"),
        ({"BitsStored": 17, "HighBit": 16}, "17 bits stored of 16"),
        ({"PresentationLUTShape": "INVERSE"}, "MONOCHROME2 .* and the shape INVERSE"),
        ({"PhotometricInterpretation": "RGB"}, "1 samples a pixel for RGB"),
        ({"Rows": 2}, "32 bytes of pixels for one image of 16"),
        ({"RescaleSlope": 0}, "RescaleSlope 0"),
        ({"RescaleSlope": "nan"}, "RescaleSlope nan"),
        ({"RescaleIntercept": "1e300"}, "RescaleIntercept 1e"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_tags_that_contradict_each_other_are_refused(tags: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        grey(TWELVE_BITS, **tags)


def test_grey_of_three_samples_is_refused() -> None:
    made = dataset(np.zeros((2, 2, 3), np.uint8), PhotometricInterpretation="MONOCHROME2")
    with pytest.raises(DataError, match="3 samples a pixel for MONOCHROME2"):
        decode(written(made))


@pytest.mark.parametrize("name", ["Rows", "BitsStored", "SamplesPerPixel", "PixelRepresentation"])
def test_a_tag_that_is_lacking_is_named(name: str) -> None:
    made = dataset(TWELVE_BITS)
    delattr(made, name)
    with pytest.raises(DataError, match=f"lacks {name}"):
        decode(written(made))


@pytest.mark.parametrize("groups", ["Shared", "PerFrame"])
def test_an_enhanced_file_has_its_window_in_functional_groups(groups: str) -> None:
    window, modality, group = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 0, 1000
    modality.RescaleSlope, modality.RescaleIntercept = 1, -1000
    window.Rows = 60_000  # no business of a window
    group.FrameVOILUTSequence = Sequence([window])
    group.PixelValueTransformationSequence = Sequence([modality])
    tags = {f"{groups}FunctionalGroupsSequence": Sequence([group])}
    usual = grey(TWELVE_BITS, WindowCenter=0, WindowWidth=1000, RescaleIntercept=-1000)
    np.testing.assert_array_equal(grey(TWELVE_BITS, **tags), usual)
    assert not np.array_equal(grey(TWELVE_BITS), usual)


@pytest.mark.parametrize(
    ("pixels", "tags", "is_flat"),
    [
        (TWELVE_BITS, {}, True),
        (TWELVE_BITS.astype(np.int16) - 1024, {}, True),
        (TWELVE_BITS, {"WindowCenter": 9e6, "WindowWidth": 10}, True),
        (np.where(TWELVE_BITS < 500, 65000, TWELVE_BITS), {"PixelPaddingValue": 65000}, True),
        (TWELVE_BITS, {"BitsStored": 12, "HighBit": 11}, False),
        (TWELVE_BITS, {"WindowCenter": 2048, "WindowWidth": 4096}, False),
        (np.full((4, 4), 7, np.uint16), {}, False),
    ],
)
def test_values_that_are_shown_as_one_grey_are_doubtful(
    pixels: np.ndarray, tags: dict[str, object], is_flat: bool
) -> None:
    content = written(dataset(pixels.astype(pixels.dtype.str[1:]), **tags))
    assert decode_and_judge(content, max_pixels=99).doubts == (("flat",) if is_flat else ())


def test_a_file_without_pixels() -> None:
    made = dataset(STORED)
    del made.PixelData
    with pytest.raises(DataError, match="holds no image"):
        decode(written(made))


def test_max_pixels_is_inclusive() -> None:
    content = written(dataset(STORED))
    assert decode(content, max_pixels=6).shape == (2, 3, 3)
    with pytest.raises(DataError, match="max_pixels = 5"):
        decode(content, max_pixels=5)


def test_mutated_files_raise_data_errors_only() -> None:
    whole, random = (
        written(dataset((HOUNSFIELD + 1024).astype(np.uint16), **CT)),
        np.random.default_rng(0),
    )
    for _ in range(300):
        content = bytearray(whole)
        for place in random.integers(132, len(content), 3):
            content[place] = random.integers(256)
        with contextlib.suppress(DataError):
            assert decode(bytes(content), max_pixels=10_000).size <= 30_000


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(dataset(STORED))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"needs pydicom: pip install 'fedprompt\[dicom\]'"):
        decode(content)


def test_a_folder_of_dicom_files_named_by_numbers(tmp_path: Path) -> None:
    for name in ("ill/1.2.840.7", "ill/IM0001", "well/a.DCM"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(written(dataset(STORED)))
    (tmp_path / "ill/2").write_bytes(b"no image")
    splits = read_folder(tmp_path)
    assert splits.train.labels.tolist() == [0, 0, 1]
    assert splits.notes == ("1 files are passed over because of their suffix: 1 without",)


def test_pydicom_is_imported_when_it_is_needed() -> None:
    assert dicom.reads_dicom()
    assert pydicom.__version__
