"""F27: one decode rule for training and deployment."""

import contextlib
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fedprompt.data import decode as decoding
from fedprompt.data.decode import (
    _TURN,
    FORMATS,
    PILLOW_MAX_PIXELS,
    decode,
    decode_and_judge,
    formats,
)
from fedprompt.errors import DataError

Encode = Callable[..., bytes]

NOISE = np.random.default_rng(7).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_rgb_comes_back_as_it_was(kind: str) -> None:
    decoded = decode(file_of(Image.fromarray(NOISE), kind))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable  # torch.from_numpy warns otherwise
    np.testing.assert_array_equal(decoded, NOISE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_F27_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    image = Image.fromarray(NOISE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(file_of(image, kind, exif=exif, **options))
    with Image.open(io.BytesIO(file_of(image, "PNG", exif=exif))) as tagged:
        np.testing.assert_array_equal(decoded, np.asarray(ImageOps.exif_transpose(tagged)))


def test_every_orientation_has_a_turn() -> None:
    assert set(_TURN) == set(range(2, 9))


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_F27_a_broken_exif_block_leaves_good_pixels(exif: bytes) -> None:
    content = file_of(Image.fromarray(NOISE), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(content), NOISE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_F27_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(file_of(Image.fromarray(values), kind))
    assert (decoded == decoded[:, :, :1]).all()
    assert np.abs(decoded[:, :, 0] - values / 257).max() <= 0.5  # rounding only


@pytest.mark.parametrize(("white", "bytes_"), [(65_535, ">u2"), (1_023, ">u2"), (255, "u1")])
def test_F27_portable_grey_maps_its_white_to_white(white: int, bytes_: str) -> None:
    content = b"P5 3 1 %d\n" % white + np.array([0, white // 2, white], bytes_).tobytes()
    assert decode(content)[0, :, 0].tolist() == [0, 127, 255]


def test_F27_transparent_sixteen_bit_grey_is_white() -> None:
    values = np.array([[0, 40_000]], dtype=np.uint16)
    decoded = decode(file_of(Image.fromarray(values), "PNG", transparency=0))
    assert decoded[0, :, 0].tolist() == [255, 156]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_F27_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new(mode, (2, 1), (0,) * len(mode))
    image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
    assert decode(file_of(image, "PNG")).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0])])
def test_F27_palette(transparency: int | bytes | None) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    options = {} if transparency is None else {"transparency": transparency}
    second = [40, 50, 60] if transparency is None else [255, 255, 255]
    assert decode(file_of(image, "PNG", **options)).tolist() == [[[10, 20, 30], second]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_F27_cmyk(kind: str) -> None:
    options = {"quality": 100} if kind == "JPEG" else {}
    red = decode(file_of(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind, **options))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 2  # JPEG's own loss


def test_F27_one_bit_and_grey() -> None:
    assert decode(file_of(Image.new("1", (1, 1), 1), "PNG")).tolist() == [[[255] * 3]]
    assert decode(file_of(Image.new("L", (1, 1), 77), "PNG")).tolist() == [[[77] * 3]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_F27_only_the_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = file_of(first, kind, save_all=True, append_images=[second], **options)
    assert decode(content).reshape(-1, 3).tolist() == [[255, 0, 0]] * 16


def tiff_16(values: np.ndarray, photometric: int, sample_format: int) -> bytes:
    """Return a little-endian TIFF of one strip of 16 bits, tags as given."""
    pixels = values.astype("<u2" if sample_format == 1 else "<i2").tobytes()
    height, width = values.shape
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric)),
        *(
            (273, 4, 8),
            (277, 3, 1),
            (278, 4, height),
            (279, 4, len(pixels)),
            (339, 3, sample_format),
        ),
    ]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(tags)) + table + bytes(4)


LEVELS = np.array([[0, 1, 4095], [32768, 60_000, 65_535]])


def test_F27_white_is_zero_is_turned_over_in_16_bits_as_in_8() -> None:
    grey = (LEVELS + 128) // 257
    np.testing.assert_array_equal(decode(tiff_16(LEVELS, 1, 1))[..., 0], grey)
    np.testing.assert_array_equal(decode(tiff_16(LEVELS, 0, 1))[..., 0], 255 - grey)


@pytest.mark.parametrize("photometric", [0, 1])
def test_F27_signed_pixels_are_refused_as_what_they_are(photometric: int) -> None:
    with pytest.raises(
        DataError, match=r"signed 16-bit pixels|TIFF of a kind that Pillow does not"
    ):
        decode(tiff_16(LEVELS // 2, photometric, 2))
    with pytest.raises(DataError, match="signed 16-bit pixels"):
        decode(tiff_16(LEVELS // 2, 1, 2))


@pytest.mark.parametrize("white", [1, 255, 1023, 4095, 16_383, 65_535])
def test_the_white_level_becomes_255_and_all_above_it(white: int) -> None:
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = decode(file_of(Image.fromarray(values), "PNG"), white_level=white)[..., 1]
    expected = np.minimum(values.astype(float), white) * 255 / white
    assert np.abs(found - expected).max() <= 0.5
    assert found[values >= white].min() == 255
    assert np.array_equal(found, decode(tiff_16(values, 1, 1), white_level=white)[..., 1])
    assert np.array_equal(255 - found, decode(tiff_16(values, 0, 1), white_level=white)[..., 1])


def test_signed_pixels_of_8_bits_are_refused() -> None:
    content = file_of(Image.fromarray(NOISE[..., 0]), "TIFF", tiffinfo={339: 2})
    with pytest.raises(DataError, match="signed 8-bit pixels"):
        decode(content)


def in_planes(bits: int) -> bytes:
    """Return a TIFF of 2 x 2 pixels of one colour, each channel in a strip of its own."""
    planes = [struct.pack(f"<4{'H' if bits == 16 else 'B'}", *[level] * 4) for level in (200, 9, 1)]
    size, here = len(planes[0]), 8 + 2 + 10 * 12 + 4
    strips = here + 6
    at = strips + 24
    fields = [
        *((256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, here), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 3, strips), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, strips + 12)),
        (284, 3, 1, 2),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(fields))
    head += b"".join(struct.pack("<HHII", *field) for field in fields) + bytes(4)
    values = struct.pack("<3H3I3I", *[bits] * 3, at, at + size, at + 2 * size, *[size] * 3)
    return head + values + b"".join(planes)


def test_colours_in_planes_are_read_in_8_bits_and_refused_in_16() -> None:
    assert decode(in_planes(8)).tolist() == [[[200, 9, 1]] * 2] * 2
    with pytest.raises(DataError, match="colours of 16 bits in planes"):
        decode(in_planes(16))


def test_the_white_level_leaves_8_bits_and_files_that_state_their_own() -> None:
    content = file_of(Image.fromarray(NOISE), "PNG")
    np.testing.assert_array_equal(decode(content, white_level=4095), NOISE)
    stated = b"P5 2 1 1000 " + struct.pack(">HH", 500, 1000)
    assert decode(stated, white_level=4095)[0, :, 0].tolist() == [128, 255]


def test_colours_of_16_bits_have_no_white_level() -> None:
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = zlib.compress(b"\0" + struct.pack(">HHH", 4095, 2000, 100))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", row), (b"IEND", b""))
    )
    assert decode_and_judge(content, max_pixels=9).doubts == ("faint",)
    with pytest.raises(DataError, match="colours of 16 bits"):
        decode(content, white_level=4095)


@pytest.mark.parametrize(
    ("highest", "white", "is_faint"),
    [(4095, 0, True), (4096, 0, False), (0, 0, False), (4095, 4095, False), (255, 4095, True)],
)
def test_an_image_that_uses_a_sixteenth_of_its_levels_is_faint(
    highest: int, white: int, is_faint: bool
) -> None:
    content = file_of(Image.fromarray(np.full((2, 2), highest, np.uint16)), "PNG")
    found = decode_and_judge(content, max_pixels=9, white_level=white).doubts
    assert found == (("faint",) if is_faint else ())


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "PNG", "TIFF", "WEBP", "MPO", "HEIF"])
def test_a_file_of_several_pictures_is_doubtful_where_they_are_not_views_of_one(kind: str) -> None:
    formats()
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    content = file_of(first, kind, save_all=True, append_images=[second])
    found = decode_and_judge(content, max_pixels=64)
    assert found.doubts == (() if kind in ("MPO", "HEIF") else ("pages",))
    assert found.pixels[4, 4, 0] > 200
    assert decode_and_judge(file_of(first, kind), max_pixels=64).doubts == ()


def test_grey_heic_states_its_own_white() -> None:
    import pillow_heif

    levels = np.repeat(np.arange(64, dtype=np.uint16) * 1040, 64).reshape(64, 64)
    file = io.BytesIO()
    pillow_heif.from_bytes("L;16", (64, 64), levels.tobytes()).save(file, quality=-1)
    usual = decode(file.getvalue())
    assert usual.max() > 250
    np.testing.assert_array_equal(decode(file.getvalue(), white_level=4095), usual)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_phone_photos_are_read_and_turned_once(kind: str, orientation: int) -> None:
    formats()
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    image.paste((30, 30, 200), (0, 0, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()
    content = file_of(image, kind, quality=100, exif=block)
    turn = _TURN.get(orientation)
    expected = np.asarray(image if turn is None else image.transpose(turn)).astype(int)
    found = decode(content).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 8
    with pytest.raises(DataError, match="max_pixels = 3071"):
        decode(content, max_pixels=64 * 48 - 1)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_mutated_phone_photos_raise_data_errors_only(kind: str) -> None:
    formats()
    whole = file_of(Image.fromarray(NOISE).resize((32, 32)), kind)
    random = np.random.default_rng(0)
    for _ in range(100):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(256)
        with contextlib.suppress(DataError):
            decode(bytes(content), max_pixels=10_000)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    formats()
    content = file_of(Image.fromarray(NOISE).resize((32, 32)), "HEIF")
    monkeypatch.setattr(decoding, "formats", lambda: FORMATS)
    with pytest.raises(
        DataError, match=r"HEIC, which needs pillow-heif: pip .*fedprompt\[images\]"
    ):
        decode(content)
    with pytest.raises(DataError, match="pointer of Git LFS"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70_000)])
def test_F27_pixels_without_a_white_level_are_refused(mode: str, value: float) -> None:
    with pytest.raises(DataError, match="no white level"):
        decode(file_of(Image.new(mode, (2, 2), value), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM"])
def test_F27_a_truncated_file_is_refused(kind: str) -> None:
    content = file_of(Image.fromarray(np.tile(NOISE, (20, 20, 1))), kind)
    with pytest.raises(DataError):
        decode(content[: len(content) // 2])


def test_F27_nothing_and_no_image() -> None:
    with pytest.raises(DataError, match="empty file"):
        decode(b"")
    with pytest.raises(DataError, match="no image of a known format"):
        decode(b"%PDF-1.7 not an image")


def test_postscript_is_refused_because_it_starts_ghostscript() -> None:
    content = file_of(Image.fromarray(NOISE), "EPS")
    with pytest.raises(DataError, match="no image of a known format"):
        decode(content)


@pytest.mark.parametrize("size", ["0 5", "5 0"])
def test_F27_zero_size(size: str) -> None:
    with pytest.raises(DataError):
        decode(f"P5 {size} 255\n".encode())


@pytest.mark.parametrize("side", [8_001, 9_500, 13_000, 100_000])
def test_F27_a_bomb_is_refused_before_memory_is_taken(side: int) -> None:
    script = (
        "import resource, sys\n"
        "from fedprompt.data.decode import decode\n"
        "from fedprompt.errors import DataError\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    decode(b'P6 {side} {side} 255\\n' + bytes(1000))\n"
        "except DataError as error:\n"
        "    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used\n"
        "    sys.exit(0 if grown < 20_000 else f'{grown} KB for {error}')\n"
        "sys.exit('accepted')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_max_pixels_is_inclusive_and_named() -> None:
    content = file_of(Image.fromarray(NOISE), "PNG")
    assert decode(content, max_pixels=30).shape == (6, 5, 3)
    with pytest.raises(DataError, match=r"5 x 6 pixels, more than max_pixels = 29"):
        decode(content, max_pixels=29)


def test_pillows_own_bound_is_the_one_we_state() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert PILLOW_MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def test_threads_decode_alike_and_leave_the_warning_filters() -> None:
    content = file_of(Image.fromarray(NOISE), "PNG", exif=b"Exif\0\0nonsense")
    before = list(warnings.filters)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(50):
            try:
                if (decode(content) != NOISE).any():
                    wrong.append("pixels")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert warnings.filters == before


def test_the_edge_can_import_it_without_the_training_stack() -> None:
    script = (
        "import sys, fedprompt.data.decode, fedprompt.data.preprocess\n"
        "heavy = {'torch', 'pydantic', 'jaxtyping', 'datasets', 'flwr', 'open_clip'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


SEEDS = [
    file_of(Image.fromarray(NOISE), "PNG"),
    file_of(Image.fromarray(NOISE), "JPEG"),
    file_of(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    file_of(Image.fromarray(NOISE).convert("P"), "GIF"),
    file_of(Image.fromarray(NOISE), "TIFF", compression="tiff_lzw"),
    file_of(Image.fromarray(NOISE), "WEBP"),
    file_of(Image.fromarray(NOISE), "BMP"),
    file_of(Image.fromarray(NOISE.astype(np.uint16)[:, :, 0]), "PNG"),
]


def decodes_or_refuses(content: bytes) -> None:
    try:
        decoded = decode(content, max_pixels=1_000_000)
    except DataError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@given(st.binary(max_size=200))
def test_F27_random_bytes_raise_data_errors_only(content: bytes) -> None:
    decodes_or_refuses(content)


@settings(max_examples=600)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
    st.booleans(),
)
def test_F27_mutated_files_raise_data_errors_only(
    content: bytes, changes: list[tuple[float, int]], cut: float, truncate: bool
) -> None:
    mutated = bytearray(content)
    for place, value in changes:
        mutated[int(place * (len(mutated) - 1))] = value
    decodes_or_refuses(bytes(mutated[: int(cut * len(mutated))] if truncate else mutated))


def test_formats_are_known_to_this_pillow() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
