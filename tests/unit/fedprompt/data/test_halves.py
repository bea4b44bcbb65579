import numpy as np
import pytest

from fedprompt.data.halves import half, half_of
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.errors import DataError


class Numbers:
    """Give each image its own place as its bytes."""

    def content(self, index: int) -> bytes:
        return str(index).encode()

    def name(self, index: int) -> str:
        return str(index)


def images(names: str, labels: list[int]) -> ImageSet:
    domains = [place % 2 for place in range(len(labels))]
    return image_set(tuple(names), labels, Numbers(), domains, ("ink", "oil"))


@pytest.mark.parametrize(
    ("names", "base", "new"), [("abcd", "ab", "cd"), ("abcde", "abc", "de"), ("edcba", "edc", "ba")]
)
def test_the_first_half_is_base_and_an_odd_one_goes_there(names: str, base: str, new: str) -> None:
    """CoOp: m = ceil(n / 2), base = the first m, new = the rest; the order is the list's."""
    assert half(tuple(names), "base") == tuple(base)
    assert half(tuple(names), "new") == tuple(new)
    assert half(tuple(names), "all") == tuple(names)


def test_images_are_labelled_from_zero_again_and_keep_bytes_and_domain() -> None:
    whole = images("abcde", [4, 0, 3, 2, 1, 4])
    base, new = half_of(whole, "base"), half_of(whole, "new")
    assert (base.classes, base.labels.tolist()) == (tuple("abc"), [0, 2, 1])
    assert (new.classes, new.labels.tolist()) == (tuple("de"), [1, 0, 1])
    assert [new.content(i) for i in range(len(new))] == [b"0", b"2", b"5"]
    assert new.domains.tolist() == [0, 0, 1]
    named = [new.classes[label] for label in new.labels]
    assert named == [whole.classes[label] for label in whole.labels[[0, 2, 5]]]
    assert half_of(whole, "all") is whole


def test_a_half_without_images_is_empty() -> None:
    assert len(half_of(images("abcd", [0, 1]), "new")) == 0
    assert half_of(images("abcd", [0, 1]), "new").labels.dtype == np.int64


def test_one_class_is_nothing_to_tell_apart() -> None:
    with pytest.raises(DataError, match="found 1 class"):
        half(("a", "b", "c"), "new")
    with pytest.raises(DataError, match="found 1 class"):
        half_of(images("abc", [0, 2]), "new")
