import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.data import partition as module
from fedprompt.data.partition import NAMES, _complete, partition
from fedprompt.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 10, 997).astype(np.int64)


def check_law(labels: np.ndarray, parts: list[np.ndarray], count: int) -> None:
    assert len(parts) == count
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@settings(max_examples=100)
@given(
    st.sampled_from(NAMES),
    st.lists(st.integers(0, 6), min_size=1, max_size=150),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 0.3, 100.0]),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_disjoint_and_complete_or_refused(
    name: str,
    labels: list[int],
    count: int,
    seed: int,
    alpha: float,
    classes: int,
    shards: int,
) -> None:
    values = np.array(labels, dtype=np.int64)
    try:
        parts = partition(
            values,
            name,
            count,
            seed,
            alpha=alpha,
            classes_per_client=classes,
            shards_per_client=shards,
            domains=values % 2,
            domain_names=("ink", "oil"),
        )
    except DataError:
        return
    check_law(values, parts, count)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_divides_a_usual_set_and_obeys_the_seed(name: str) -> None:
    count = 5 if name == "exponential" else 10
    parts, again, other = (
        partition(LABELS, name, count, seed, domains=LABELS % 2, domain_names=("ink", "oil"))
        for seed in (3, 3, 4)
    )
    check_law(LABELS, parts, count)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any(a.tolist() != b.tolist() for a, b in zip(parts, other, strict=True))


@pytest.mark.parametrize("name", ["iid", "size", "linear"])
def test_rows_sorted_by_class_are_mixed_first(name: str) -> None:
    labels = np.repeat(np.arange(10), 100)  # an image folder comes like this
    for part in partition(labels, name, 4, 0):
        assert len(np.unique(labels[part])) == 10


def test_small_alpha_is_uneven_and_may_leave_a_site_empty() -> None:
    labels = np.repeat(np.arange(2), 20)
    parts = partition(labels, "dirichlet", 30, 0, alpha=0.01)
    check_law(labels, parts, 30)
    assert min(map(len, parts)) == 0


def test_min_images_is_kept_or_refused() -> None:
    assert min(map(len, partition(LABELS, "dirichlet", 10, 0, min_images=20))) >= 20
    with pytest.raises(DataError, match="dirichlet partitioner cannot divide 997 images"):
        partition(LABELS, "dirichlet", 10, 0, alpha=0.001, min_images=99)


def test_pathological_gives_each_site_its_number_of_classes() -> None:
    for part in partition(LABELS, "pathological", 20, 0, classes_per_client=2):
        assert len(np.unique(LABELS[part])) == 2


def test_pathological_refuses_to_drop_classes() -> None:
    with pytest.raises(DataError, match=r"of 10 classes \(\d+ images\) to no site; take more"):
        partition(LABELS, "pathological", 3, 0, classes_per_client=2)


def test_shards_deal_out_what_is_left_over() -> None:
    labels = np.repeat(np.arange(10), 103)  # 1,030 rows make 20 shards of 51, and 10 rows
    parts = partition(labels, "shard", 10, 0)
    check_law(labels, parts, 10)
    assert sorted(map(len, parts))[0] >= 102


def test_dropped_rows_go_where_their_class_is() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    parts = _complete(labels, [np.array([0, 1]), np.array([3])], "shard")
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5]]


def test_rows_given_twice_are_refused() -> None:
    with pytest.raises(DataError, match="gave 1 images twice"):
        _complete(np.array([0, 1]), [np.array([0, 1]), np.array([1])], "iid")


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("dirichelet", 2, "no partitioner is named 'dirichelet'; expected one of iid, dirichlet"),
        ("iid", 0, "cannot divide 997 images among 0 sites; expected 1 to 997"),
        ("dirichlet", 998, "among 998 sites"),
        ("linear", 100, "linear partitioner cannot divide 997 images among 100 sites"),
    ],
)
def test_bad_input_is_named(name: str, count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(LABELS, name, count, 0)


def test_names_are_the_public_list() -> None:
    assert (*module._PARTITIONERS, "domain", "disjoint") == NAMES
    assert {"iid", "dirichlet", "pathological", "shard", "size", "linear"} <= set(NAMES)
