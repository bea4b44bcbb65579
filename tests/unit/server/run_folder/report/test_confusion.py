import base64
import io

import numpy as np
import pytest
from PIL import Image

from server.run_folder.report.confusion import frequent_mistakes, picture, shares
from server.run_folder.report.predictions import Predictions


def test_shares_of_rows_and_an_empty_row():
    assert shares([[1, 3], [0, 0]]) == [[0.25, 0.75], [0.0, 0.0]]


def test_mistakes_come_most_frequent_first():
    found = Predictions(
        accuracy=0.5, classes=("a", "b", "c"), confusion=((5, 1, 0), (4, 4, 0), (0, 2, 0))
    )
    assert [(m.true, m.predicted, m.images) for m in frequent_mistakes(found)] == [
        ("b", "a", 4), ("c", "b", 2), ("a", "b", 1),
    ]  # fmt: skip
    assert frequent_mistakes(found)[0].share == pytest.approx(0.5)


def test_no_mistakes():
    assert frequent_mistakes(Predictions(accuracy=1, classes=("a",), confusion=((5,),))) == []


@pytest.mark.parametrize("side", [1, 30, 600])
def test_picture_is_as_opaque_as_the_share(side):
    found = Image.open(io.BytesIO(base64.b64decode(picture(np.eye(side, dtype=int).tolist()))))
    assert found.mode == "RGBA"
    assert found.width % side == 0
    assert found.width >= 500 or side == 600
    alpha = np.asarray(found)[:: found.width // side, :: found.width // side, 3]
    np.testing.assert_array_equal(alpha, 255 * np.eye(side))
