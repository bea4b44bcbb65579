import numpy as np
import pytest

from export.runtime.prediction import rank


def test_large_logits_do_not_overflow() -> None:
    found = rank("x", np.array([1e4, 1e4, -1e4], np.float32), ("a", "b", "c"), 3)
    assert found.classes == ("a", "b", "c")  # a tie keeps the order of the classes
    assert found.probabilities == pytest.approx((0.5, 0.5, 0.0))


def test_top_k() -> None:
    found = rank("x", np.array([0, 1, 2], np.float32), ("a", "b", "c"), 1)
    assert (found.top, len(found.probabilities)) == ("c", 1)
