import pytest

from fedprompt.data.splits import named_splits, role_of, split_word
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
        ("TrainSet", "train"),
        ("trainA", None),
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


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("seg_train", ("train", ("seg",))),
        ("testB", ("test", ("b",))),
        ("train.v2", ("train", ("v",))),
        ("contest", None),
        ("train_test", None),
    ],
)
def test_a_split_is_a_word_of_a_name(name: str, split: object) -> None:
    assert split_word(name) == split


def test_two_names_of_one_split_are_refused() -> None:
    assert named_splits(["Train", "more", "val"], "x") == {"train": "Train", "val": "val"}
    with pytest.raises(DataError, match="x: 'test' and 'Testing' both mean the test split"):
        named_splits(["train", "test", "Testing"], "x")
