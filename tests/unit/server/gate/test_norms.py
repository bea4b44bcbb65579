"""The bound on updates, for itself; through the gate it is tested there."""

import numpy as np
import pytest

from server.gate.norms import REJECT_BEYOND, Bounds, clip
from server.gate.verdict import Accepted, Reason

CURRENT = {"a": np.zeros(3), "b": np.zeros((2, 2))}


def update(site, size):
    return Accepted(site, site, {"a": np.array([size, 0, 0]), "b": np.zeros((2, 2))}, 1, 0.0)


def test_the_norm_is_over_all_arrays():
    both = Accepted(0, 0, {"a": np.array([3.0, 0, 0]), "b": np.array([[4.0, 0], [0, 0]])}, 1, 0.0)
    (kept,), _ = clip([both], CURRENT, Bounds(0.0, 1.0))
    np.testing.assert_allclose(kept.update["a"], [0.6, 0, 0])
    np.testing.assert_allclose(kept.update["b"], [[0.8, 0], [0, 0]])


def test_clipping_keeps_direction_and_length_is_the_bound():
    kept, verdicts = clip([update(0, 1), update(1, 1), update(2, 50)], CURRENT, Bounds(5.0, 0.0))
    assert [u.update["a"][0] for u in kept] == [1, 1, 5]
    assert [v.reasons for v in verdicts] == [(Reason.CLIPPED,)]


def test_far_over_the_bound_is_refused():
    far = update(2, 5 * REJECT_BEYOND * 1.01)
    kept, verdicts = clip([update(0, 1), update(1, 1), far], CURRENT, Bounds(5.0, 0.0))
    assert [u.site for u in kept] == [0, 1]
    assert verdicts[0].reasons == (Reason.NORM,)


def test_off_means_untouched():
    huge = update(0, 1e30)
    assert clip([huge], CURRENT, Bounds(0.0, 0.0)) == ([huge], [])


def test_the_smaller_of_two_bounds_counts():
    kept, _ = clip([update(0, 1), update(1, 10)], CURRENT, Bounds(5.0, 2.0))
    assert [u.update["a"][0] for u in kept] == pytest.approx([1, 2])


def test_no_updates_are_no_error():
    assert clip([], CURRENT, Bounds(5.0, 1.0)) == ([], [])
