import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from server.merge.privacy.noise import add_noise, clipped_mean

CURRENT = {"scale": np.asarray(2.0), "x": np.zeros((2, 3))}


def norm(change):
    return math.hypot(*(float(np.linalg.norm(part)) for part in change.values()))


def test_small_changes_are_averaged_as_they_are():
    updates = [{"scale": np.asarray(2.5), "x": np.full((2, 3), v)} for v in (0.1, 0.3)]
    mean = clipped_mean(updates, CURRENT, 10.0, 2)
    np.testing.assert_allclose(mean["x"], 0.2)
    np.testing.assert_allclose(mean["scale"], 2.5)


def test_a_change_of_zero_divides_by_nothing():
    mean = clipped_mean([CURRENT], CURRENT, 1.0, 1)
    assert norm({n: mean[n] - CURRENT[n] for n in mean}) == 0


def test_no_updates_at_all_are_a_change_of_zero():
    assert clipped_mean([], CURRENT, 1.0, 3)["scale"] == 2.0


values = st.floats(-1e60, 1e60)  # products of float32 factors reach 1e77


@given(arrays(np.float64, (2, 3), elements=values), values, st.floats(1e-6, 1e6))
def test_one_update_moves_the_mean_by_its_share_of_the_clip_at_most(x, scale, clip):
    mean = clipped_mean([{"scale": np.asarray(2.0 + scale), "x": x}], CURRENT, clip, 4)
    change = {n: mean[n] - CURRENT[n] for n in mean}
    assert norm(change) <= clip / 4 * (1 + 1e-9) + 1e-15  # rounding at 2.0, where scale stands


def test_the_noise_is_gaussian_and_independent():
    """Kolmogorov-Smirnov on 20,000 draws; a sound generator falls below 1e-9 never."""
    drawn = add_noise({"x": np.zeros((100, 200))}, 3.0)["x"]
    assert kstest(drawn.ravel(), "norm", (0, 3.0)).pvalue > 1e-9
    neighbours = np.corrcoef(drawn[:, ::2].ravel(), drawn[:, 1::2].ravel())[0, 1]
    assert abs(neighbours) < 6.5 / np.sqrt(10000)


def test_numpys_seed_does_not_foretell_it():
    np.random.seed(1)
    one = add_noise({"x": np.zeros(8)}, 1.0)["x"]
    np.random.seed(1)
    assert (one != add_noise({"x": np.zeros(8)}, 1.0)["x"]).all()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
def test_shapes_are_kept(shape):
    found = add_noise({"x": np.zeros(shape)}, 1.0)["x"]
    assert isinstance(found, np.ndarray)
    assert found.shape == shape
