"""The law of the domain partitioner, counted here by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.data.domain_partition import divide_by_domain, domain_of_site
from fedprompt.data.partition import partition
from fedprompt.errors import DataError

NAMES = ("ink", "oil", "clay", "wool", "tin")


@settings(max_examples=200)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=120),
    st.integers(1, 14),
    st.integers(0, 2**32 - 1),
)
def test_one_domain_a_site_no_row_lost_none_doubled_classes_in_equal_shares(
    number: int, rows: list[tuple[int, int]], count: int, seed: int
) -> None:
    domains = np.array([domain % number for domain, _ in rows], dtype=np.int64)
    labels = np.array([label for _, label in rows], dtype=np.int64)
    wanted = {d: len([s for s in range(count) if s % number == d]) for d in range(number)}
    enough = all(int((domains == d).sum()) >= max(sites, 1) for d, sites in wanted.items())
    if count < number or not enough:
        with pytest.raises(DataError, match=r"data\.clients"):
            divide_by_domain(labels, domains, NAMES[:number], count, seed)
        return
    parts = divide_by_domain(labels, domains, NAMES[:number], count, seed)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(rows)))
    for site, part in enumerate(parts):
        assert part.dtype == np.int64
        assert part.tolist() == sorted(part.tolist())
        assert (
            {int(domains[row]) for row in part} == {site % number} == {domain_of_site(site, number)}
        )
    for domain in range(number):
        mine = [part for site, part in enumerate(parts) if site % number == domain]
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        for label in range(7):
            held = [int((labels[part] == label).sum()) for part in mine]
            assert max(held) - min(held) <= 1


def test_the_seed_decides_and_rows_are_mixed() -> None:
    labels = np.tile(np.repeat(np.arange(3), 20), 2)
    domains = np.repeat(np.arange(2), 60)
    one, again, other = (
        [part.tolist() for part in divide_by_domain(labels, domains, NAMES[:2], 4, seed)]
        for seed in (0, 0, 1)
    )
    assert one == again != other
    neighbours = [b - a for a, b in zip(one[0], one[0][1:], strict=False)]
    assert len(set(neighbours)) > 2  # not every second row


def test_partition_by_name() -> None:
    labels = np.zeros(6, np.int64)
    domains = np.array([1, 0, 1, 0, 1, 0])
    parts = partition(labels, "domain", 2, 0, domains=domains, domain_names=NAMES[:2])
    assert [part.tolist() for part in parts] == [[1, 3, 5], [0, 2, 4]]
    with pytest.raises(DataError, match=r"belong to no domains.*domain column.*data\.partitioner"):
        partition(labels, "domain", 2, 0)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, r"2 domains \(ink, oil\) to 1 sites of one domain each; take at least 2 sites"),
        (4, r"the domain 'oil' has 1 training images for 2 sites; take fewer sites"),
    ],
)
def test_what_cannot_be_divided_is_named(count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide_by_domain(np.zeros(5, np.int64), np.array([0, 0, 1, 0, 0]), NAMES[:2], count, 0)
