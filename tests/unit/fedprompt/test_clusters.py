import subprocess
import sys

import numpy as np

from fedprompt.clusters import centres, cut


def test_centres_are_a_fixed_point_of_lloyds_step() -> None:
    points = np.concatenate([np.random.default_rng(i).normal(10 * i, 1, (20, 3)) for i in range(4)])
    found = centres(points, np.ones(80), 4, 0)
    nearest = ((points[:, None] - found) ** 2).sum(-1).argmin(1)
    expected = np.stack([points[nearest == i].mean(0) for i in range(4)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert sorted(np.bincount(nearest)) == [20] * 4


def test_a_heavier_point_counts_as_many() -> None:
    points = np.array([[0.0], [1.0], [100.0]])
    found = centres(points, np.array([3.0, 1.0, 1.0]), 2, 0)
    np.testing.assert_allclose(np.sort(found[:, 0]), [0.25, 100.0])
    same = centres(np.array([[0.0]] * 3 + [[1.0], [100.0]]), np.ones(5), 2, 0)
    np.testing.assert_allclose(np.sort(same[:, 0]), [0.25, 100.0])


def test_few_distinct_points_are_repeated() -> None:
    points = np.repeat(np.array([[1.0, 2.0], [3.0, 4.0]]), 10, axis=0)
    found = centres(points, np.ones(20), 5, 0)
    assert found.shape == (5, 2)
    assert {tuple(row) for row in found.tolist()} == {(1.0, 2.0), (3.0, 4.0)}


def test_points_are_cut_in_their_own_direction() -> None:
    points = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(cut(points, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])


def test_no_torch_is_loaded_for_it() -> None:
    code = "import sys, fedprompt.clusters; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
