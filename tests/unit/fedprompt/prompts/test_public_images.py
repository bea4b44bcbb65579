from pathlib import Path

import numpy as np
import pytest

from fedprompt.data.decode import decode
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.errors import DataError
from fedprompt.prompts.public_images import public_pixels
from tests.pictures import image_folder

PRE = Preprocessing(size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("public") / "photos", ("cat", "dog"), 6)


def test_all_images_as_the_tower_takes_them_in_some_order(photos: Path) -> None:
    found = public_pixels(str(photos), 100, PRE, 0).numpy()
    files = [path.read_bytes() for path in photos.rglob("*.png")]
    expected = {fit_to_input(decode(content), PRE).tobytes() for content in files}
    assert {image.tobytes() for image in found} == expected
    assert found.shape == (12, 32, 32, 3)


def test_some_images_drawn_by_the_seed(photos: Path) -> None:
    one, same, other = (public_pixels(str(photos), 5, PRE, seed).numpy() for seed in (0, 0, 1))
    assert one.shape == (5, 32, 32, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        public_pixels(str(tmp_path / "nowhere"), 5, PRE, 0)
