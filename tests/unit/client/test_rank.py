import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.rank import shrink


def factors(rank: int, seed: int = 0, length: int = 6, width: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ctx.A": rng.normal(size=(length, rank)).astype(np.float32),
        "ctx.B": rng.normal(size=(rank, width)).astype(np.float32),
    }


def product(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["ctx.A"].astype(np.float64) @ arrays["ctx.B"]


@given(seed=st.integers(0, 2**20), rank=st.integers(2, 6), kept=st.integers(1, 5))
def test_it_is_the_best_approximation_of_that_rank(seed: int, rank: int, kept: int) -> None:
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


def test_a_zero_product_can_still_learn() -> None:
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
