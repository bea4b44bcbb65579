"""Images and labels as sites have them (F27, F28), through the commands.

F31, a GPU whose memory is too small, is in ``test_memory_faults.py``.
"""

import io
import json
import resource
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from export.runtime.inputs import pixels_of
from fedprompt.data.decode import decode
from fedprompt.data.load import inspect, load
from fedprompt.settings.data import DataConfig
from tests.doors import passed, refused
from tests.pictures import image_folder

CLASSES = ("blue", "green", "red")
SMALL = ("--set", "backbone.name=embedded-cnn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos", CLASSES, 20)


def train(source, output, *settings):
    sets = [part for text in (f"data.source={source}", *settings) for part in ("--set", text)]
    return ["train", *SMALL, *sets, "--output", output]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# F27

COLOUR = np.random.default_rng(5).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY_16 = np.random.default_rng(6).integers(0, 65536, (9, 14)).astype(np.uint16)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(COLOUR), "PNG", exif=exif)


def palette():
    few = COLOUR // 128 * 255  # eight colours: no quantisation
    return few, encoded(Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")


def see_through():
    alpha = np.where(np.arange(14) % 2, 255, 0).astype(np.uint8) * np.ones((9, 1), np.uint8)
    shown = np.where(alpha[..., None] == 255, COLOUR, 255)
    return shown, encoded(Image.fromarray(np.dstack([COLOUR, alpha])), "PNG")


def cmyk():
    image = Image.fromarray(COLOUR).convert("CMYK")
    return np.asarray(image.convert("RGB")), encoded(image, "TIFF")


def grey_16(kind):
    grey = ((GREY_16.astype(int) + 128) // 257).astype(np.uint8)
    return np.dstack([grey] * 3), encoded(Image.fromarray(GREY_16), kind)


CASES = {
    "plain": lambda: (COLOUR, encoded(Image.fromarray(COLOUR), "PNG")),
    "upside-down": lambda: (COLOUR[::-1, ::-1], turned(3)),
    "on its right side": lambda: (np.rot90(COLOUR, -1), turned(6)),
    "on its left side": lambda: (np.rot90(COLOUR), turned(8)),
    "mirrored": lambda: (COLOUR[:, ::-1], turned(2)),
    "palette": palette,
    "see-through": see_through,
    "cmyk": cmyk,
    "16-bit png": lambda: grey_16("PNG"),
    "16-bit tiff": lambda: grey_16("TIFF"),
}


@pytest.mark.parametrize("case", CASES)
def test_F27_the_same_pixels_in_training_and_deployment(tmp_path, photos, case):
    expected, content = CASES[case]()
    (photos / "red" / "odd.img.png").write_bytes(content)
    images, _ = load(DataConfig(source=str(photos), test_share=0))
    names = [images.name(index) for index in range(len(images))]
    mine = images.content(names.index("red/odd.img.png"))
    learnt = decode(mine, max_pixels=DataConfig().max_pixels)
    np.testing.assert_array_equal(learnt, expected)
    for source in (photos / "red" / "odd.img.png", content):
        np.testing.assert_array_equal(pixels_of(source, "odd"), learnt)
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(pixels_of(opened, "odd"), learnt)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width, height):
    """A real PNG, whole: black, deflated a thousand times."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def webp_canvas(side):
    """The head of an animated WebP that claims a large canvas."""
    claimed = (side - 1).to_bytes(3, "little") * 2
    frame = encoded(Image.new("RGB", (1, 1)), "WEBP")[12:]
    parts = b"VP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + claimed + frame
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def broken():
    whole = encoded(Image.fromarray(COLOUR), "PNG")
    jpeg = encoded(Image.fromarray(COLOUR), "JPEG")
    flipped = bytearray(whole)
    flipped[60] ^= 255
    yield "empty", b""
    yield "text", b"no image"
    yield "truncated png", whole[:60]
    yield "truncated jpeg", jpeg[: len(jpeg) // 2]
    yield "corrupt", bytes(flipped)
    yield "bomb", png_bomb(12_000, 12_000)
    yield "canvas", webp_canvas(16_000)
    yield "32-bit", encoded(Image.fromarray(GREY_16.astype(np.int32)), "TIFF")
    yield "program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


BROKEN = dict(broken())


@pytest.mark.parametrize("kind", BROKEN)
def test_F27_a_bad_file_is_skipped_and_listed(tmp_path, photos, caplog, kind):
    """One of 61, wherever the split puts it."""
    (photos / "red" / "bad.png").write_bytes(BROKEN[kind])
    passed(*train(photos, tmp_path / "out", "fit.epochs=1"))
    assert "1 images cannot be read and are skipped: 'red/bad.png: " in caplog.text
    (skipped,) = inspect(DataConfig(source=str(photos))).skipped
    assert skipped[0] == "red/bad.png"


def test_F27_above_five_per_cent_the_run_is_refused_and_all_are_named(tmp_path, photos):
    for name in ("a", "b", "c", "d"):
        (photos / "red" / f"{name}.png").write_bytes(b"no image")
    done = refused(3, *train(photos, tmp_path / "out"), says="more than the 5% of")
    for name in ("a", "b", "c", "d"):
        assert f"red/{name}.png" in done.stderr
    assert not (tmp_path / "out" / "artefact").exists()


@pytest.mark.parametrize("kind", ["bomb", "canvas"])
def test_F27_a_bomb_takes_no_memory(kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Exception, match=r"max_pixels|could not be decoded|bomb"):
        decode(BROKEN[kind])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000  # kilobytes; the pixels would take 432 MB and 768 MB


@pytest.mark.slow
def test_F27_prediction_goes_on_past_a_bad_image(tmp_path, photos):
    passed(*train(photos, tmp_path / "out"))
    model = tmp_path / "classifier.onnx"
    passed("export", tmp_path / "out", "-o", model)
    (tmp_path / "bad.jpg").write_bytes(BROKEN["truncated jpeg"])
    good = photos / "red" / "0.png"
    done = refused(3, "predict", model, good, tmp_path / "bad.jpg", "--json", says="bad.jpg")
    found = json.loads(done.stdout)
    assert [entry["image"] for entry in found["results"]] == [str(good)]
    assert [entry["image"] for entry in found["errors"]] == [str(tmp_path / "bad.jpg")]


# F28


def test_F28_an_empty_class_is_refused_unless_it_is_meant(tmp_path, photos, caplog):
    (photos / "white").mkdir()
    done = refused(3, *train(photos, tmp_path / "out"), says="without a training image: 'white'")
    assert "data.class_names" in done.stderr
    passed(*train(photos, tmp_path / "out", "data.class_names=blue,green,red,white"))
    assert "classes without a training image here: 'white'" in caplog.text


def split(root, leaked):
    """A train and a test folder with some images in both."""
    image_folder(root / "train", CLASSES, 20)
    image_folder(root / "test", CLASSES, 5, size=40)
    for number in range(leaked):
        shutil.copy(
            root / "train" / "red" / f"{number}.png", root / "test" / "red" / f"t{number}.png"
        )
    return root


def test_F28_a_single_sample_is_named(tmp_path, caplog):
    source = split(tmp_path / "photos", 0)
    image_folder(tmp_path / "more", ("white",), 1, size=44)
    shutil.copytree(tmp_path / "more" / "white", source / "train" / "white")
    passed(*train(source, tmp_path / "out"))
    assert "classes with a single training image: 'white'" in caplog.text


def test_F28_duplicates_are_named_and_a_torn_label_too(tmp_path, caplog):
    source = split(tmp_path / "photos", 0)
    shutil.copy(source / "train" / "red" / "0.png", source / "train" / "red" / "again.png")
    shutil.copy(source / "train" / "red" / "1.png", source / "train" / "blue" / "torn.png")
    passed(*train(source, tmp_path / "out"))
    assert "2 training images are copies of others" in caplog.text
    assert "train/red/again.png" in caplog.text
    assert "1 copies have another label than the first" in caplog.text


def test_F28_a_test_image_in_training_is_named_and_dropped(tmp_path, caplog):
    source = split(tmp_path / "photos", 2)
    passed(*train(source, tmp_path / "out"))
    assert "2 training images are also in the test split" in caplog.text
    assert "train/red/0.png = test/red/t0.png" in caplog.text
    loaded = inspect(DataConfig(source=str(source)))
    kept = {loaded.train.name(index) for index in range(len(loaded.train))}
    assert not kept & {"train/red/0.png", "train/red/1.png"}
    assert len(kept) == 58


def test_F28_more_than_five_per_cent_is_refused(tmp_path):
    source = split(tmp_path / "photos", 4)
    done = refused(3, *train(source, tmp_path / "out"), says="4 training images are also in the")
    assert "train/red/3.png = test/red/t3.png" in done.stderr


def test_F28_leakage_is_refused_or_allowed_as_the_settings_say(tmp_path, caplog):
    source = split(tmp_path / "photos", 1)
    strict = train(source, tmp_path / "out", "data.leakage=refuse")
    refused(3, *strict, says="train/red/0.png = test/red/t0.png")
    passed(*train(source, tmp_path / "out", "data.leakage=allow"))
    assert "the test accuracy is too high by them" in caplog.text


def test_F28_copies_never_lie_on_both_sides_of_a_split_made_here(tmp_path, photos):
    for number in range(20):
        shutil.copy(photos / "red" / f"{number}.png", photos / "red" / f"copy{number}.png")
    loaded = inspect(DataConfig(source=str(photos)))
    held = {loaded.test.digest(index) for index in range(len(loaded.test))}
    learnt = {loaded.train.digest(index) for index in range(len(loaded.train))}
    assert held
    assert not held & learnt
