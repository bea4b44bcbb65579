import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.data.shots import few_shot, hold_out, stratified

Labels = st.lists(st.integers(0, 5), max_size=120).map(lambda v: np.array(v, dtype=np.int64))
Seeds = st.integers(0, 2**32 - 1)


def counts(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, minlength=6)


@given(Labels, st.integers(0, 20), Seeds)
def test_few_shot_takes_as_many_as_asked_or_all_there_are(
    labels: np.ndarray, shots: int, seed: int
) -> None:
    taken = few_shot(labels, shots, seed)
    assert taken.dtype == np.int64
    assert (np.diff(taken) > 0).all()  # ascending, none twice
    np.testing.assert_array_equal(counts(labels[taken]), np.minimum(counts(labels), shots))


@given(Labels, st.integers(1, 20), Seeds)
def test_more_shots_contain_fewer(labels: np.ndarray, shots: int, seed: int) -> None:
    assert set(few_shot(labels, shots - 1, seed)) <= set(few_shot(labels, shots, seed))


def test_a_class_is_drawn_without_regard_to_the_others() -> None:
    one = np.array([0] * 30 + [1] * 30)
    other = np.array([0] * 30 + [2] * 30)
    first = [few_shot(labels, 4, 1)[:4].tolist() for labels in (one, other)]
    assert first[0] == first[1]


@given(Labels, st.integers(0, 150), Seeds)
def test_stratified_takes_the_limit_in_proportion(
    labels: np.ndarray, limit: int, seed: int
) -> None:
    taken = stratified(labels, limit, seed)
    total = min(limit, len(labels))
    assert len(taken) == len(set(taken.tolist())) == total
    exact = counts(labels) * total / max(len(labels), 1)
    assert (np.abs(counts(labels[taken]) - exact) < 1).all()


@given(Labels, st.floats(0, 1, exclude_max=True), Seeds)
def test_hold_out_is_disjoint_and_complete_and_leaves_every_class(
    labels: np.ndarray, share: float, seed: int
) -> None:
    kept, held = hold_out(labels, share, seed)
    np.testing.assert_array_equal(np.sort(np.append(kept, held)), np.arange(len(labels)))
    assert set(labels[kept]) == set(labels)
    assert len(held) <= round(share * len(labels))


def test_hold_out_takes_a_fifth_of_each_class() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert counts(labels[hold_out(labels, 0.2, 0)[1]]).tolist() == [10, 10, 10, 10, 0, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed: int) -> None:
    labels = np.repeat(np.arange(5), 100)
    for draw in (few_shot, stratified):
        np.testing.assert_array_equal(draw(labels, 16, seed), draw(labels, 16, seed))
        assert draw(labels, 16, seed).tolist() != draw(labels, 16, seed + 1).tolist()
    assert hold_out(labels, 0.2, seed)[1].tolist() != hold_out(labels, 0.2, seed + 1)[1].tolist()
