import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.runtime.inputs import name_of, pixels_of
from fedprompt.errors import DataError


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_takes_the_one_rule(mode: str) -> None:
    pixels = pixels_of(Image.new(mode, (4, 3)), "x")
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 4, 3)


def test_orientation_of_a_pillow_image_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.new("RGB", (8, 4), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        assert pixels_of(opened, "x").shape == (8, 4, 3)
    assert pixels_of(path, "x").shape == (8, 4, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((3, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match="expected uint8"):
        pixels_of(array, "x")


def test_what_cannot_be_an_image_is_refused(tmp_path: Path) -> None:
    for source in (Image.new("F", (2, 2)), Image.new("HSV", (2, 2)), b"", tmp_path):
        with pytest.raises(DataError, match=r"^x"):
            pixels_of(source, "x")


def test_names() -> None:
    assert name_of("a.png", 3) == "a.png"
    assert name_of(b"", 3) == "image 3"


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    for path in ("/dev/zero", tmp_path / "pipe.png", tmp_path / "huge.png", tmp_path):
        with pytest.raises(DataError, match="it is no regular file"):
            pixels_of(path, "x")
