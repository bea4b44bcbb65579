"""What is special about factors is tested with the rule that needs it, in server/rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.dense import products
from fedprompt.factors import given_to, nearest, refactor, shrink


def draw(seed: int, rank: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ctx.B": rng.normal(size=(rank, 7)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
        "ctx.A": rng.normal(size=(4, rank)).astype(np.float32),
        "lonely.B": rng.normal(size=(1, 5)).astype(np.float32),
    }


def test_factors_of_the_same_rank_come_back_as_the_same_product_in_the_same_order() -> None:
    arrays = draw(0, 2)
    found, lost = nearest(products(arrays), arrays)
    assert list(found) == list(arrays)
    assert {name: a.shape for name, a in found.items()} == {n: a.shape for n, a in arrays.items()}
    np.testing.assert_allclose(
        found["ctx.A"] @ found["ctx.B"], arrays["ctx.A"] @ arrays["ctx.B"], rtol=1e-4, atol=1e-5
    )
    for name in ("bias", "lonely.B"):
        assert np.array_equal(found[name], arrays[name])
    assert lost == pytest.approx(0, abs=1e-7)


def test_what_the_rank_cannot_hold_is_told() -> None:
    one, two = draw(0, 1), draw(1, 1)
    mean = {n: (products(one)[n] + products(two)[n]) / 2 for n in products(one)}
    found, lost = nearest(mean, one)
    spectrum = np.linalg.svd(mean["ctx"], compute_uv=False)
    assert lost == pytest.approx(spectrum[1] / np.sqrt((spectrum**2).sum()), rel=1e-6)
    kept = np.linalg.norm(found["ctx.A"].astype(float) @ found["ctx.B"])
    assert kept == pytest.approx(spectrum[0], rel=1e-5)


def factors(rank: int, seed: int = 0, length: int = 6, width: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ctx.A": rng.normal(size=(length, rank)).astype(np.float32),
        "ctx.B": rng.normal(size=(rank, width)).astype(np.float32),
    }


def product(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["ctx.A"].astype(np.float64) @ arrays["ctx.B"]


@given(seed=st.integers(0, 2**20), rank=st.integers(2, 6), kept=st.integers(1, 5))
def test_shrinking_is_the_best_approximation_of_that_rank(seed: int, rank: int, kept: int) -> None:
    kept = min(kept, rank - 1)
    given_ = factors(rank, seed)
    found = shrink(given_, kept)
    assert {n: a.shape for n, a in found.items()} == {"ctx.A": (6, kept), "ctx.B": (kept, 32)}
    assert all(array.dtype == np.float32 for array in found.values())
    spectrum = np.linalg.svd(product(given_), compute_uv=False)
    error = np.linalg.norm(product(given_) - product(found))
    assert error == pytest.approx(np.linalg.norm(spectrum[kept:]), rel=1e-4)  # Eckart-Young


def test_both_factors_carry_the_root_of_the_spectrum() -> None:
    given_ = factors(4)
    found = shrink(given_, 2)
    root = np.sqrt(np.linalg.svd(product(given_), compute_uv=False)[:2])
    np.testing.assert_allclose(np.linalg.norm(found["ctx.A"], axis=0), root, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["ctx.B"], axis=1), root, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 3, 4, 64])
def test_zero_or_no_smaller_rank_changes_nothing(rank: int) -> None:
    given_ = factors(3)
    found = shrink(given_, rank)
    assert all(found[name] is given_[name] for name in given_)


def test_a_zero_product_keeps_the_first_columns_and_can_still_learn() -> None:
    given_ = factors(4)
    given_["ctx.B"][:] = 0
    found = shrink(given_, 2)
    assert np.array_equal(found["ctx.A"], given_["ctx.A"][:, :2])
    assert not found["ctx.B"].any()


def test_a_product_of_lower_rank_than_asked_can_still_learn() -> None:
    """A direction with both factors at zero would never get a gradient again."""
    given_ = factors(4)
    given_["ctx.B"][1:] = 0  # rank 1
    found = shrink(given_, 3)
    np.testing.assert_allclose(product(found), product(given_), rtol=1e-5, atol=1e-6)
    assert (np.linalg.norm(found["ctx.A"], axis=0) > 1e-3).all()


def test_arrays_that_are_no_pair_stay() -> None:
    basis = {"ctx.B": np.ones((4, 32), np.float32)}
    full = {"ctx": np.ones((4, 32), np.float32)}
    assert shrink(basis, 1) == basis
    assert shrink(full, 1) == full


def test_what_was_given_is_not_touched() -> None:
    given_ = factors(4)
    shrink(given_, 1)
    assert np.array_equal(given_["ctx.A"], factors(4)["ctx.A"])


@given(
    seed=st.integers(0, 2**20),
    rank=st.integers(1, 5),
    own=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_who_learned_nothing_returns_what_it_was_given(
    seed: int, rank: int, own: int, dtype: str
) -> None:
    current = {n: a.astype(dtype).astype(np.float32) for n, a in factors(rank, seed).items()}
    sent = {n: a.astype(dtype).astype(np.float32) for n, a in shrink(current, own).items()}
    given_ = given_to(current, sent, dtype)
    assert all(given_[name].tobytes() == sent[name].tobytes() for name in sent)


@given(seed=st.integers(0, 2**20), rank=st.integers(2, 5), heavy=st.integers(0, 5))
def test_no_two_components_learn_the_same_direction(seed: int, rank: int, heavy: int) -> None:
    """Columns kept for want of weight stand at right angles to all others, whatever they were."""
    rng = np.random.default_rng(seed)
    heavy = min(heavy, rank)
    left = np.linalg.qr(rng.normal(size=(6, rank)))[0].astype(np.float32)
    chosen = rng.permutation(rank)[:heavy]  # which components moved, not the first ones only
    matrix = left[:, chosen].astype(float) @ rng.normal(size=(heavy, 9))
    found, right, tail = refactor(matrix, left, np.zeros((rank, 9), np.float32))
    np.testing.assert_allclose(found @ right, matrix, atol=1e-5)
    assert tail == pytest.approx(0, abs=1e-20)
    lengths = np.linalg.norm(found, axis=0)
    assert (lengths > 0.05).all()
    cosines = (found.T @ found) / np.outer(lengths, lengths)
    np.testing.assert_allclose(cosines, np.eye(rank), atol=1e-5)


def test_a_column_that_moved_alone_is_not_learned_twice() -> None:
    """Only component 1 moved, so it comes first; component 1 must not keep its own column too."""
    left = np.float32([[1, 0], [0, 1], [0, 0]])
    matrix = np.outer([0.0, 1.0, 0.0], [3.0, 4.0])
    found, _, _ = refactor(matrix, left, np.zeros((2, 2), np.float32))
    assert abs(found[:, 0] @ found[:, 1]) < 1e-6
    assert np.linalg.norm(found[:, 1]) == pytest.approx(1.0)


def test_factors_whose_squares_overflow_float32_come_back_finite() -> None:
    big = {"ctx.A": np.float32([[3e19], [4e19]]), "ctx.B": np.float32([[1e-20, 2e-20]])}
    found, _ = nearest(products(big), big)
    assert all(np.isfinite(array).all() for array in found.values())
    np.testing.assert_allclose(found["ctx.A"] @ found["ctx.B"], [[0.3, 0.6], [0.4, 0.8]], rtol=1e-5)
