import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.basis import columns


@given(length=st.integers(1, 130), data=st.data())
def test_columns_are_orthonormal(length: int, data: st.DataObject) -> None:
    rank, turn = data.draw(st.integers(1, length)), data.draw(st.integers(0, 1000))
    found = columns(length, rank, turn)
    assert (found.shape, found.dtype) == ((length, rank), np.float32)
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-5)


@pytest.mark.parametrize("length", [1, 3, 4, 12, 16, 77])
def test_turns_go_through_all_columns_and_begin_anew(length: int) -> None:
    cycle = np.hstack([columns(length, 1, turn) for turn in range(length)])
    np.testing.assert_allclose(cycle @ cycle.T, np.eye(length), atol=1e-5)
    assert np.array_equal(columns(length, 1, length), columns(length, 1, 0))
    rank = min(2, length)
    pairs = np.hstack([columns(length, rank, turn) for turn in range(length)])
    assert np.linalg.matrix_rank(pairs) == length


def test_the_constant_column_comes_last() -> None:
    found = np.hstack([columns(4, 1, turn) for turn in range(4)])
    np.testing.assert_array_equal(
        2 * found, [[1, 1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1], [-1, -1, 1, 1]]
    )


@given(length=st.integers(2, 130), turn=st.integers(0, 300))
def test_all_others_have_mixed_signs_that_add_up_to_nothing(length: int, turn: int) -> None:
    column = columns(length, 1, turn % (length - 1))[:, 0]
    assert column.min() < 0 < column.max()
    assert column.sum() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("rank", [0, 5])
def test_no_more_columns_than_there_are(rank: int) -> None:
    with pytest.raises(ValueError, match="a basis of 4 columns"):
        columns(4, rank)
