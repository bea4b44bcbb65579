"""The prompt that travels; how a merge uses it is tested with the rules, in server/rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.identity import sha256_arrays
from fedprompt.prompt_state import PromptState, difference, norm, pairs, refactor, toward


def draw(seed: int, rank: int) -> PromptState:
    rng = np.random.default_rng(seed)
    return PromptState(
        {
            "ctx.B": rng.normal(size=(rank, 7)).astype(np.float32),
            "bias": rng.normal(size=3).astype(np.float32),
            "ctx.A": rng.normal(size=(4, rank)).astype(np.float32),
            "lonely.B": rng.normal(size=(1, 5)).astype(np.float32),
        }
    )


def test_factors_of_the_same_rank_come_back_as_the_same_product_in_the_same_order() -> None:
    arrays = draw(0, 2)
    found, lost = arrays.project(arrays.lift())
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
    mean = toward(one.lift(), two.lift(), 0.5)
    found, lost = one.project(mean)
    spectrum = np.linalg.svd(mean["ctx"], compute_uv=False)
    assert lost == pytest.approx(spectrum[1] / np.sqrt((spectrum**2).sum()), rel=1e-6)
    kept = np.linalg.norm(found["ctx.A"].astype(float) @ found["ctx.B"])
    assert kept == pytest.approx(spectrum[0], rel=1e-5)


def factors(rank: int, seed: int = 0, length: int = 6, width: int = 32) -> PromptState:
    rng = np.random.default_rng(seed)
    return PromptState(
        {
            "ctx.A": rng.normal(size=(length, rank)).astype(np.float32),
            "ctx.B": rng.normal(size=(rank, width)).astype(np.float32),
        }
    )


def product(arrays: PromptState) -> np.ndarray:
    return arrays["ctx.A"].astype(np.float64) @ arrays["ctx.B"]


@given(seed=st.integers(0, 2**20), rank=st.integers(2, 6), kept=st.integers(1, 5))
def test_shrinking_is_the_best_approximation_of_that_rank(seed: int, rank: int, kept: int) -> None:
    kept = min(kept, rank - 1)
    given_ = factors(rank, seed)
    found = given_.truncate(kept)
    assert {n: a.shape for n, a in found.items()} == {"ctx.A": (6, kept), "ctx.B": (kept, 32)}
    assert all(array.dtype == np.float32 for array in found.values())
    spectrum = np.linalg.svd(product(given_), compute_uv=False)
    error = np.linalg.norm(product(given_) - product(found))
    assert error == pytest.approx(np.linalg.norm(spectrum[kept:]), rel=1e-4)  # Eckart-Young


def test_both_factors_carry_the_root_of_the_spectrum() -> None:
    given_ = factors(4)
    found = given_.truncate(2)
    root = np.sqrt(np.linalg.svd(product(given_), compute_uv=False)[:2])
    np.testing.assert_allclose(np.linalg.norm(found["ctx.A"], axis=0), root, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["ctx.B"], axis=1), root, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 3, 4, 64])
def test_zero_or_no_smaller_rank_changes_nothing(rank: int) -> None:
    given_ = factors(3)
    found = given_.truncate(rank)
    assert found == given_


def test_a_zero_product_keeps_the_first_columns_and_can_still_learn() -> None:
    given_ = factors(4) | {"ctx.B": np.zeros((4, 32))}
    found = given_.truncate(2)
    assert np.array_equal(found["ctx.A"], given_["ctx.A"][:, :2])
    assert not found["ctx.B"].any()


def test_a_product_of_lower_rank_than_asked_can_still_learn() -> None:
    """A direction with both factors at zero would never get a gradient again."""
    given_ = factors(4)
    given_ |= {"ctx.B": given_["ctx.B"] * np.eye(4)[:, :1]}  # rank 1
    found = given_.truncate(3)
    np.testing.assert_allclose(product(found), product(given_), rtol=1e-5, atol=1e-6)
    assert (np.linalg.norm(found["ctx.A"], axis=0) > 1e-3).all()


def test_arrays_that_are_no_pair_stay() -> None:
    for name in ("ctx.B", "ctx"):
        state = PromptState({name: np.ones((4, 32))})
        assert state.truncate(1) == state
        assert (state.rank, factors(4).rank) == (0, 4)


@given(
    seed=st.integers(0, 2**20),
    rank=st.integers(1, 5),
    own=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_who_learned_nothing_returns_what_it_was_given(
    seed: int, rank: int, own: int, dtype: str
) -> None:
    current = factors(rank, seed).rounded(dtype)
    sent = current.truncate(own).rounded(dtype)
    assert current.given_to(sent, dtype) == sent


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
    big = PromptState({"ctx.A": [[3e19], [4e19]], "ctx.B": [[1e-20, 2e-20]]})
    found, _ = big.project(big.lift())
    assert all(np.isfinite(array).all() for array in found.values())
    np.testing.assert_allclose(found["ctx.A"] @ found["ctx.B"], [[0.3, 0.6], [0.4, 0.8]], rtol=1e-5)


LENGTH, WIDTH = 3, 5


def pair(seed: int, rank: int, scale: float) -> PromptState:
    rng = np.random.default_rng(seed)
    return PromptState(
        {
            "ctx.A": (scale * rng.normal(size=(LENGTH, rank))).astype(np.float32),
            "ctx.B": (scale * rng.normal(size=(rank, WIDTH))).astype(np.float32),
        }
    )


def moved(new: PromptState, old: PromptState) -> float:
    return norm(difference(new.lift(), old.lift()))


@given(
    seed=st.integers(0, 999),
    rank=st.integers(1, 3),
    scale=st.floats(1e-3, 300),
    limit=st.floats(1e-6, 1e4),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_an_update_is_at_most_as_long_as_allowed_as_it_travels(
    seed: int, rank: int, scale: float, limit: float, dtype: str
) -> None:
    start = pair(seed, rank, 0.02).rounded(dtype)
    found = pair(seed + 1, rank, scale).clip(start, limit, {}, dtype)
    travelled = found.rounded(dtype)
    assert moved(travelled, start) <= limit


@given(seed=st.integers(0, 999), limit=st.floats(0.01, 2.0))
def test_what_is_cut_is_cut_no_more_than_needed(seed: int, limit: float) -> None:
    """The bisection ends at the limit itself, not somewhere below it."""
    start = pair(seed, 2, 0.02)
    found = pair(seed + 1, 2, 3.0).clip(start, limit, {}, "float32")
    assert moved(found, start) > 0.999 * limit


def test_a_short_update_and_no_limit_change_nothing() -> None:
    start, trained = pair(1, 2, 0.02), pair(2, 2, 1.0)
    length = moved(trained, start)
    for limit in (0.0, length * 1.001):
        assert trained.clip(start, limit, {}, "float32") is trained


def test_a_full_prompt_is_cut_along_its_way() -> None:
    start = PromptState({"ctx": np.zeros((2, 2), np.float32)})
    trained = PromptState({"ctx": np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)})
    found = trained.clip(start, 1.0, {}, "float32")["ctx"]
    assert found == pytest.approx(trained["ctx"] / 5, rel=1e-6)


def test_a_shared_basis_counts() -> None:
    """Only B travels; the update that it stands for is A (B - B0)."""
    frozen = PromptState({"ctx.A": np.full((LENGTH, 1), 100.0, np.float32)})
    start = PromptState({"ctx.B": np.zeros((1, WIDTH), np.float32)})
    trained = PromptState({"ctx.B": np.ones((1, WIDTH), np.float32)})
    found = trained.clip(start, 1.0, frozen, "float32")
    assert 0.999 < moved(found | frozen, start | frozen) <= 1.0


def test_several_prompts_share_one_norm() -> None:
    start = PromptState({"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)})
    trained = PromptState({"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)})
    found = trained.clip(start, 2.5, {}, "float32")
    assert [float(found[n][0]) for n in "ab"] == pytest.approx([1.5, 2.0], rel=1e-6)


@given(
    seed=st.integers(0, 999),
    rank=st.integers(1, 2),
    limit=st.floats(1e-3, 10),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_a_site_of_smaller_rank_is_measured_from_what_it_was_given(
    seed: int, rank: int, limit: float, dtype: str
) -> None:
    """What its rank cannot hold is no change of its own: it counts not at all."""
    start = pair(seed, 3, 1.0).rounded(dtype)
    given_ = start.truncate(rank).rounded(dtype)
    assert given_.clip(start, 1e-9, {}, dtype) is given_
    trained = pair(seed + 1, rank, 1.0)
    found = trained.clip(start, limit, {}, dtype)
    travelled = found.rounded(dtype)
    assert moved(travelled, given_) <= limit
    assert {name: a.shape for name, a in found.items()} == {n: a.shape for n, a in trained.items()}


def test_what_overflows_on_the_wire_is_brought_back() -> None:
    start = PromptState({"ctx": np.zeros((1, 1), np.float32)})
    trained = PromptState({"ctx": np.full((1, 1), 1e6, np.float32)})  # above float16
    found = trained.clip(start, 100.0, {}, "float16")["ctx"]
    assert 99 < found[0, 0] <= 100


def test_a_pair_is_two_factors_of_one_name() -> None:
    """Rule shared-basis sends B only: A stands at every site."""
    assert pairs(["t.A", "t.B", "v.B", "full", "w.A"]) == ["t"]
    assert list(PromptState({"ctx.B": np.ones((1, 3))}).lift()) == ["ctx.B"]


def test_lifted_factors_are_their_product_and_others_pass_in_float64() -> None:
    arrays = {"z": np.float32([1, 2]), "ctx.B": [[1, 2, 3]], "ctx.A": [[2], [4]]}
    found = PromptState(arrays).lift()
    assert list(found) == ["ctx", "z"]
    np.testing.assert_array_equal(found["ctx"], [[2, 4, 6], [4, 8, 12]])
    assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}


def test_nothing_changes_a_state() -> None:
    own = np.zeros(2, np.float32)
    state = PromptState({"b": own, "a": own})
    own[:] = 1
    assert not state["b"].any()
    with pytest.raises(ValueError, match="read-only"):
        state["b"][:] = 1
    longer = state | {"c": own}
    assert (list(state), list(longer)) == (["b", "a"], ["b", "a", "c"])
    assert longer.select(["a", "b"]) == state != longer
    assert state.sha256 == sha256_arrays(dict(state))


@given(
    seed=st.integers(0, 999), rank=st.integers(1, 4), dtype=st.sampled_from(["float32", "float16"])
)
def test_what_learned_nothing_did_not_move(seed: int, rank: int, dtype: str) -> None:
    sent = factors(4, seed).rounded(dtype)
    reply = sent.truncate(rank).rounded(dtype)
    assert not sent.unmoved(reply | {"new.B": np.ones((1, 2))})["new.B"].any()
    assert moved(reply, sent.given_to(reply, dtype)) == 0


@given(seed=st.integers(0, 999), share=st.floats(0, 1))
def test_a_share_of_the_way_is_that_share_of_the_length(seed: int, share: float) -> None:
    one, other = factors(2, seed).lift(), factors(3, seed + 1).lift()
    length = norm(difference(other, one))
    found = norm(difference(toward(one, other, share), one))
    assert found == pytest.approx(share * length, rel=1e-9, abs=1e-12)
