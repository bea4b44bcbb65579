"""Bulyan for itself; against a plain implementation it is tested in test_robust.py."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.merge.bulyan import bulyan, one_by_one


def test_hostile_points_are_chosen_last_and_then_cut_away():
    """Two colluders in one place are each other's neighbour when few are left: so it is published.

    The second step leaves their values out, being farthest from the median.
    """
    points = np.vstack([np.random.default_rng(0).normal(size=(9, 6)), np.full((2, 6), 1e12)])
    assert set(one_by_one(points, 2, 5)) <= set(range(9))
    assert np.abs(bulyan(points, 2)).max() < 2


def test_each_point_is_chosen_once():
    points = np.random.default_rng(1).normal(size=(7, 3))
    assert sorted(one_by_one(points, 1, 7)) == list(range(7))


@settings(max_examples=50)
@given(st.permutations(range(11)))
def test_the_order_does_not_matter_even_where_one_neighbour_decides(order):
    points = np.random.default_rng(2).normal(size=(11, 3))
    np.testing.assert_allclose(bulyan(points[list(order)], 2), bulyan(points, 2), rtol=1e-12)


def test_a_far_shift_of_all_loses_no_choice():
    """Distances are taken from differences: squares of 1e7 would drown those of 1e-3."""
    points = 1e-3 * np.random.default_rng(3).normal(size=(11, 4))
    assert one_by_one(points + 1e7, 2, 7) == one_by_one(points.round(9) + 1e7, 2, 7)
    assert set(one_by_one(points + 4096.0, 2, 7)) == set(one_by_one(points, 2, 7))
