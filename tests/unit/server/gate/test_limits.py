"""What a reply may say at most: absolute bounds, and means that do not overflow."""

import math

import numpy as np
import pytest

from fedprompt.wire import LARGEST_NUMBER
from server.gate.limits import (
    LARGEST_LOSS,
    is_loss,
    largest_number,
    merged_limit,
    update_limit,
    weighted_mean,
    weights,
)


@pytest.mark.parametrize("loss", [0, 0.0, -0.0, 5e-324, 1, 200.5, LARGEST_LOSS])
def test_a_mean_cross_entropy_is_a_loss(loss):
    assert is_loss(loss)


@pytest.mark.parametrize(
    "loss", [-1e-9, 1.1e6, 1.7e308, math.inf, math.nan, 10**400, None, "1", [1.0]]
)
def test_what_no_images_can_give_is_none(loss):
    assert not is_loss(loss)


def test_the_largest_number_is_a_magnitude():
    assert largest_number({"a": np.array([1.0, -7.0]), "b": np.zeros((0, 2))}) == 7.0
    assert largest_number({}) == 0.0
    assert math.isnan(largest_number({"a": np.ones(1), "b": np.array([math.nan]), "c": np.ones(1)}))


def test_a_prompt_that_begins_large_keeps_its_room():
    small, large = {"a": np.ones(2)}, {"a": np.full(2, -1e5)}
    assert (merged_limit(small), update_limit(small)) == (LARGEST_NUMBER, 2 * LARGEST_NUMBER)
    assert (merged_limit(large), update_limit(large)) == (1e5, 2e5)


def test_the_limits_fit_into_half_precision():
    assert np.finfo(np.float16).max > 2 * LARGEST_NUMBER


@pytest.mark.parametrize(
    "pairs",
    [[(5, 1.0), (5, 1.7e308)], [(5, 1.0), (10**15, 1e308)], [(2**63, 1.7e308)] * 9],
)
def test_a_mean_of_finite_values_is_finite(pairs):
    values = [value for _, value in pairs]
    found = weighted_mean(pairs)
    assert math.isfinite(found)
    assert found == pytest.approx(max(values), rel=1e-12) or min(values) < found < max(values)


def test_a_mean_is_the_plain_formula_to_the_bit():
    rng = np.random.default_rng(0)
    for _ in range(100):
        pairs = [
            (int(w), float(v)) for w, v in zip(rng.integers(1, 99, 5), rng.random(5), strict=True)
        ]
        plain = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs)
        assert weighted_mean(pairs) == plain


@pytest.mark.parametrize(
    ("counts", "agreed", "expected"),
    [
        ({0: 24, 1: 24, 2: 24, 3: 10**9}, (), {0: 24, 1: 24, 2: 24, 3: 48}),
        ({0: 24, 1: 24, 2: 24, 3: 900}, (3,), {0: 24, 1: 24, 2: 24, 3: 900}),
        ({0: 10, 1: 15, 2: 19}, (), {0: 10, 1: 15, 2: 19}),
        ({0: 10, 1: 1000}, (), {0: 10, 1: 20}),  # of two, the larger cannot set the median
        ({0: 7}, (), {0: 7}),
        ({}, (), {}),
    ],
)
def test_a_sites_own_word_weighs_twice_the_median_at_most(counts, agreed, expected):
    assert weights(counts, agreed) == expected
