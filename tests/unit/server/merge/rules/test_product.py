"""Rule `product`: exact averaging of dense products, the nearest factors back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.prompt_state import PromptState, refactor
from server.merge.rules import product
from server.merge.rules.product import project

seeds = st.integers(0, 2**32 - 1)


def factors(seed, length=4, rank=1, width=16, scale=1.0):
    rng = np.random.default_rng(seed)
    return PromptState(
        {
            "ctx.A": scale * rng.normal(size=(length, rank)),
            "ctx.B": rng.normal(size=(rank, width)),
        }
    )


lift = PromptState.lift


def mean(updates, weights=None):
    lifted = [lift(update) for update in updates]
    weights = np.ones(len(updates)) if weights is None else np.asarray(weights, float)
    share = weights / weights.sum()
    return {n: sum(w * u[n] for w, u in zip(share, lifted, strict=True)) for n in lifted[0]}


def test_lift_gives_the_dense_product_and_passes_other_arrays():
    arrays = factors(0) | {"scale": np.float32([2.0])}
    lifted = lift(arrays)
    assert list(lifted) == ["ctx", "scale"]
    np.testing.assert_allclose(lifted["ctx"], arrays["ctx.A"] @ arrays["ctx.B"], rtol=1e-6)
    assert lifted["ctx"].dtype == lifted["scale"].dtype == np.float64


def test_sites_of_unequal_rank_meet_without_padding():
    assert lift(factors(0, rank=1))["ctx"].shape == lift(factors(0, rank=3))["ctx"].shape


def test_other_arrays_come_back_identical():
    current = factors(0) | {"maps": np.float32([[1.5, -2.25]]), "lonely.B": np.float32([3.0])}
    back = project(lift(current), current).arrays
    assert list(back) == list(current)
    for name in ("maps", "lonely.B"):
        assert back[name].tobytes() == current[name].tobytes()


@settings(max_examples=50)
@given(seeds, st.integers(1, 4))
def test_error_is_the_tail_of_the_spectrum(seed, rank):
    matrix = np.random.default_rng(seed).normal(size=(4, 16))
    current = factors(seed, rank=rank)
    projection = project({"ctx": matrix}, current)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    expected = np.sqrt(np.sum(sigma[rank:] ** 2) / np.sum(sigma**2))
    # atol: at full rank nothing is lost but float64's rounding
    assert projection.truncation_error == pytest.approx(expected, rel=1e-9, abs=1e-12)
    kept = projection.arrays["ctx.A"].astype(float) @ projection.arrays["ctx.B"]
    found = np.linalg.norm(kept - matrix) / np.linalg.norm(matrix)
    assert found == pytest.approx(expected, abs=1e-6)  # factors are float32


@settings(max_examples=50)
@given(seeds, st.integers(1, 3))
def test_no_random_candidate_of_the_rank_is_nearer(seed, rank):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(4, 16))
    left, right, _ = refactor(matrix, **_factors(seed, rank))
    best = np.linalg.norm(matrix - left @ right)
    for _ in range(20):
        a = rng.normal(size=(4, rank))
        fitted = a @ np.linalg.lstsq(a, matrix, rcond=None)[0]  # the best B for a random A
        assert best <= np.linalg.norm(matrix - fitted) + 1e-5


def _factors(seed, rank):
    arrays = factors(seed, rank=rank)
    return {"left": arrays["ctx.A"], "right": arrays["ctx.B"]}


@settings(max_examples=50)
@given(seeds, st.permutations(range(5)))
def test_merge_does_not_depend_on_the_order_of_sites(seed, order):
    updates = [factors(seed + i) for i in range(5)]
    weights = np.arange(1, 6)
    one = project(mean(updates, weights), updates[0]).arrays
    other = project(mean([updates[i] for i in order], weights[list(order)]), updates[0]).arrays
    np.testing.assert_allclose(
        one["ctx.A"] @ one["ctx.B"], other["ctx.A"] @ other["ctx.B"], atol=1e-6
    )


@settings(max_examples=50)
@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_equal_sites_keep_their_product(seed, rank, sites):
    update = factors(seed, rank=rank)
    projection = project(mean([update] * sites), update)
    want = update["ctx.A"] @ update["ctx.B"]
    got = projection.arrays["ctx.A"] @ projection.arrays["ctx.B"]
    np.testing.assert_allclose(got, want, atol=1e-5 * max(1.0, float(np.abs(want).max())))
    assert projection.truncation_error < 1e-6


@settings(max_examples=50)
@given(seeds, st.floats(0.01, 100))
def test_weights_act_linearly(seed, weight):
    one, two = factors(seed), factors(seed + 1)
    merged = mean([one, two], [weight, 1])["ctx"]
    expected = (weight * lift(one)["ctx"] + lift(two)["ctx"]) / (weight + 1)
    np.testing.assert_allclose(merged, expected, atol=1e-12)


@settings(max_examples=50)
@given(seeds, st.integers(1, 3))
def test_both_factors_carry_the_same_share(seed, rank):
    matrix = np.random.default_rng(seed).normal(size=(4, 16))
    left, right, _ = refactor(matrix, **_factors(seed, rank))
    np.testing.assert_allclose(left.T @ left, right @ right.T, atol=1e-5)


@settings(max_examples=50)
@given(seeds)
def test_equal_products_give_equal_factors(seed):
    """The signs of the two given factors do not matter."""
    update = factors(seed)
    flipped = PromptState({name: -array for name, array in update.items()})
    one, other = project(lift(update), update).arrays, project(lift(flipped), flipped).arrays
    for name in one:
        assert one[name].tobytes() == other[name].tobytes()


def test_an_unmoved_prompt_keeps_its_start():
    """A = B = 0 has no gradient: the random A must survive a round in which nobody moved."""
    start = factors(3, scale=0.02) | {"ctx.B": np.zeros((1, 16), np.float32)}
    projection = project(mean([start, start]), start)
    assert projection.truncation_error == 0.0
    for name, array in start.items():
        assert projection.arrays[name].tobytes() == array.tobytes()


def test_a_tiny_first_step_does_not_shrink_the_left_factor():
    """Balanced, A would fall to 1e-4 of its length and B would get no gradient."""
    start = factors(3, scale=0.02)
    moved = start | {"ctx.B": np.float32(1e-8) * start["ctx.B"]}
    back = project(lift(moved), moved).arrays
    assert np.linalg.norm(back["ctx.A"]) == pytest.approx(np.linalg.norm(moved["ctx.A"]), rel=1e-5)
    np.testing.assert_allclose(back["ctx.A"] @ back["ctx.B"], lift(moved)["ctx"], rtol=1e-4)


def test_an_empty_component_keeps_a_left_column_to_learn_from():
    """One site of rank 1 merged into a prompt of rank 2 must not kill the second component."""
    current = factors(5, rank=2)
    back = project(mean([factors(6, rank=1)]), current).arrays
    first, second = back["ctx.A"].T
    assert np.linalg.norm(second) == pytest.approx(np.linalg.norm(current["ctx.A"][:, 1]), rel=1e-5)
    assert abs(first @ second) < 1e-5
    assert not back["ctx.B"][1].any()


def test_no_rank_is_invented_beyond_the_matrix():
    current = factors(5, length=2, rank=2, width=1)
    matrix = np.array([[1.0], [2.0]])
    left, right, tail = refactor(matrix, current["ctx.A"], current["ctx.B"])
    np.testing.assert_allclose(left @ right, matrix, rtol=1e-6)
    assert tail == 0.0


def test_rule_takes_mixed_ranks_and_merges_exactly():
    assert product.RULE.mixed_ranks
    assert product.RULE.merge_error([lift(factors(0))], [1.0]) == 0.0
