import numpy as np
import pytest

from fedprompt.data.class_partition import divide_by_class
from fedprompt.data.partition import partition
from fedprompt.errors import DataError

LABELS = np.array([5, 0, 0, 1, 3, 3, 5, 1, 0, 4], dtype=np.int64)  # class 2 has no image


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_class_lies_whole_at_one_site_and_no_site_is_empty(count: int) -> None:
    parts = divide_by_class(LABELS, count, seed=3)
    assert len(parts) == count
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    holdings = [set(LABELS[part].tolist()) for part in parts]
    assert sum(map(len, holdings)) == len(set().union(*holdings)) == 5
    sizes = sorted(map(len, holdings))
    assert sizes[-1] - sizes[0] <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


def test_the_seed_draws_the_classes() -> None:
    def held(seed: int) -> list[set[int]]:
        return [set(LABELS[part].tolist()) for part in divide_by_class(LABELS, 2, seed)]

    assert held(1) == held(1)
    assert any(held(seed) != held(0) for seed in range(1, 6))


def test_more_sites_than_classes_are_refused() -> None:
    with pytest.raises(DataError, match="6 sites classes of their own: 5 classes have images"):
        divide_by_class(LABELS, 6, seed=0)


def test_it_is_a_partitioner_by_name() -> None:
    found = partition(LABELS, "disjoint", 3, 3)
    expected = divide_by_class(LABELS, 3, 3)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
