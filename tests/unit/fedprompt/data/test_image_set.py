import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.errors import DataError


class Letters:
    def content(self, index: int) -> bytes:
        return bytes([index])

    def name(self, index: int) -> str:
        return f"row {index}"


def some(labels: list[int]) -> ImageSet:
    return image_set(["cat", "dog", "owl"], labels, Letters())


def test_content_name_and_digest() -> None:
    images = some([0, 2, 1])
    assert (len(images), images.content(1), images.name(2)) == (3, b"\1", "row 2")
    assert images.digest(1) == hashlib.sha256(b"\1").hexdigest()
    assert images.labels.dtype == np.int64


@given(st.lists(st.integers(0, 2), max_size=20), st.data())
def test_a_subset_of_a_subset_keeps_labels_with_images(
    labels: list[int], data: st.DataObject
) -> None:
    images = some(labels)
    places = st.lists(st.integers(0, max(len(labels) - 1, 0)), max_size=20 if labels else 0)
    chosen = data.draw(places)
    subset = images.subset(chosen)
    again = subset.subset(np.arange(len(subset))[::-1])
    assert [images.content(i) for i in chosen] == [subset.content(i) for i in range(len(subset))]
    assert subset.labels.tolist() == [labels[i] for i in chosen]
    assert again.labels.tolist() == subset.labels.tolist()[::-1]
    assert [again.name(i) for i in range(len(again))] == [f"row {i}" for i in chosen[::-1]]


def test_a_subset_keeps_the_domains_with_their_images() -> None:
    images = image_set(["cat", "dog"], [0, 1, 1], Letters(), [2, 0, 1], ["ink", "oil", "clay"])
    subset = images.subset([2, 0])
    assert subset.domains.tolist() == [1, 2]
    assert subset.domain_names == ("ink", "oil", "clay")
    assert subset.subset([]).domains.shape == (0,)
    plain = some([0, 1]).subset([1])
    assert (plain.domains.shape, plain.domain_names) == ((0,), ())


@pytest.mark.parametrize(
    ("domains", "names", "message"),
    [
        ([0, 0, 2], ["ink", "oil"], "domains run from 0 to 2; expected 0 to 1"),
        ([0, 0], ["ink"], r"found domains \(2,\) for labels \(3,\) and 1 names"),
        ([0, 0, 0], [], r"and 0 names of domains; expected \(0,\)"),
        ([], ["ink"], r"expected \(3,\)"),
    ],
)
def test_domains_that_do_not_fit_are_refused(
    domains: list[int], names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        image_set(["cat", "dog"], [0, 1, 1], Letters(), domains, names)


def test_an_empty_subset_is_a_set() -> None:
    empty = some([0, 1]).subset([])
    assert len(empty) == 0
    assert empty.labels.dtype == np.int64
    assert empty.counts().tolist() == [0, 0, 0]


def test_counts_have_a_place_for_each_class() -> None:
    assert some([0, 2, 2]).counts().tolist() == [1, 0, 2]


@pytest.mark.parametrize("labels", [[3], [-1], [0, 5]])
def test_labels_outside_the_classes_are_refused(labels: list[int]) -> None:
    with pytest.raises(DataError, match="expected 0 to 2"):
        some(labels)


def test_one_label_an_image() -> None:
    with pytest.raises(DataError, match="expected one each"):
        ImageSet(("a",), np.zeros(2, np.int64), Letters(), np.zeros(3, np.int64))
