"""Distance and cosine of each site's update."""

import numpy as np
import pytest

from fedprompt.round_record import Measure
from server.gate.outliers import measure
from server.gate.verdict import Accepted

CURRENT = {"a": np.ones(2), "b": np.ones((1, 1))}


def update(site, x, y, z=0.0):
    return Accepted(site, site, {"a": np.array([1 + x, 1 + y]), "b": np.array([[1 + z]])}, 1, None)


def merged(x, y, z=0.0):
    return update(0, x, y, z).update


def test_distance_is_relative_to_the_median_and_cosine_to_the_merged_step():
    found = measure([update(2, 3, 0), update(0, 0, 0), update(1, -5, 0)], CURRENT, merged(1, 0))
    assert list(found) == [0, 1, 2]
    assert found[2] == Measure(distance=1.0, cosine=1.0)
    assert found[0] == Measure(distance=0.5, cosine=0.0)
    assert found[1] == Measure(distance=3.0, cosine=-1.0)


def test_scale_does_not_matter():
    points = [(1, 2), (2, 1), (-3, 1)]
    one = measure([update(i, *p) for i, p in enumerate(points)], CURRENT, merged(1, 1))
    many = measure(
        [update(i, 8 * p[0], 8 * p[1]) for i, p in enumerate(points)], CURRENT, merged(8, 8)
    )
    for site in one:
        assert many[site].distance == pytest.approx(one[site].distance)
        assert many[site].cosine == pytest.approx(one[site].cosine)


def test_a_merge_that_moves_nothing_measures_nobody():
    assert measure([update(0, 0, 0)], CURRENT, CURRENT) == {0: Measure(distance=1.0, cosine=0.0)}
    assert measure([], CURRENT, CURRENT) == {}


def test_numbers_stay_finite_at_the_edge_of_float32():
    found = measure([update(0, 3e38, 3e38), update(1, 1, 1)], CURRENT, merged(1, 1))
    assert np.isfinite([found[0].distance, found[0].cosine]).all()
