import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.norm import dense, shorten
from fedprompt.factors import shrink

LENGTH, WIDTH = 3, 5


def pair(seed: int, rank: int, scale: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ctx.A": (scale * rng.normal(size=(LENGTH, rank))).astype(np.float32),
        "ctx.B": (scale * rng.normal(size=(rank, WIDTH))).astype(np.float32),
    }


def moved(new: dict, old: dict, frozen: dict) -> float:
    here, there = dense(new, frozen), dense(old, frozen)
    return float(np.sqrt(sum(np.sum((here[n] - there[n]) ** 2) for n in there)))


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
    start = {n: a.astype(dtype).astype(np.float32) for n, a in pair(seed, rank, 0.02).items()}
    found = shorten(pair(seed + 1, rank, scale), start, {}, limit, dtype)
    travelled = {n: a.astype(dtype).astype(np.float32) for n, a in found.items()}
    assert moved(travelled, start, {}) <= limit


@given(seed=st.integers(0, 999), limit=st.floats(0.01, 2.0))
def test_what_is_cut_is_cut_no_more_than_needed(seed: int, limit: float) -> None:
    """The bisection ends at the limit itself, not somewhere below it."""
    start = pair(seed, 2, 0.02)
    found = shorten(pair(seed + 1, 2, 3.0), start, {}, limit, "float32")
    assert moved(found, start, {}) > 0.999 * limit


def test_a_short_update_and_no_limit_change_nothing() -> None:
    start, trained = pair(1, 2, 0.02), pair(2, 2, 1.0)
    length = moved(trained, start, {})
    for limit in (0.0, length * 1.001):
        assert shorten(trained, start, {}, limit, "float32") is trained


def test_a_full_prompt_is_cut_along_its_way() -> None:
    start = {"ctx": np.zeros((2, 2), np.float32)}
    trained = {"ctx": np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)}
    found = shorten(trained, start, {}, 1.0, "float32")["ctx"]
    assert found == pytest.approx(trained["ctx"] / 5, rel=1e-6)


def test_a_shared_basis_counts() -> None:
    """Only B travels; the update that it stands for is A (B - B0)."""
    frozen = {"ctx.A": np.full((LENGTH, 1), 100.0, np.float32)}
    start = {"ctx.B": np.zeros((1, WIDTH), np.float32)}
    trained = {"ctx.B": np.ones((1, WIDTH), np.float32)}
    found = shorten(trained, start, frozen, 1.0, "float32")
    assert 0.999 < moved(found, start, frozen) <= 1.0


def test_several_prompts_share_one_norm() -> None:
    start = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    trained = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)}
    found = shorten(trained, start, {}, 2.5, "float32")
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
    start = {n: a.astype(dtype).astype(np.float32) for n, a in pair(seed, 3, 1.0).items()}
    given_ = {n: a.astype(dtype).astype(np.float32) for n, a in shrink(start, rank).items()}
    assert shorten(given_, start, {}, 1e-9, dtype) is given_
    trained = pair(seed + 1, rank, 1.0)
    found = shorten(trained, start, {}, limit, dtype)
    travelled = {n: a.astype(dtype).astype(np.float32) for n, a in found.items()}
    assert moved(travelled, given_, {}) <= limit
    assert {name: a.shape for name, a in found.items()} == {n: a.shape for n, a in trained.items()}


def test_what_overflows_on_the_wire_is_brought_back() -> None:
    start = {"ctx": np.zeros((1, 1), np.float32)}
    trained = {"ctx": np.full((1, 1), 1e6, np.float32)}  # above float16
    found = shorten(trained, start, {}, 100.0, "float16")["ctx"]
    assert 99 < found[0, 0] <= 100
