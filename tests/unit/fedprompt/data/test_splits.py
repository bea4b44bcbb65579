import pytest

from fedprompt.data.splits import named_splits, role_of
from fedprompt.errors import DataError


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("train_images", "train"),
        ("Validation Set", "val"),
        ("val-1", "val"),
        ("testset", "test"),
        ("eval", "test"),
        ("", None),
        ("data", None),
        ("2017", None),
        ("freight train", None),
        ("test tube", None),
        ("trainer", None),
        ("contest", None),
        ("train test", None),
        ("invalid", None),
    ],
)
def test_which_names_mean_a_split(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_two_names_of_one_split_are_refused() -> None:
    assert named_splits(["Train", "more", "val"], "x") == {"train": "Train", "val": "val"}
    with pytest.raises(DataError, match="x: 'test' and 'Testing' both mean the test split"):
        named_splits(["train", "test", "Testing"], "x")
