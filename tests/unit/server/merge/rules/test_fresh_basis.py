"""Rule `fresh-basis`: B is averaged, A B is added; exact, whatever the round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.basis import columns
from server.merge.rules import RULES
from server.merge.rules.fresh_basis import place

RULE = RULES["fresh-basis"]
ROUNDS = st.integers(1, 300)


@given(server_round=ROUNDS, length=st.integers(1, 9), data=st.data())
def test_averaging_b_averages_the_prompts(server_round, length, data):
    rank = data.draw(st.integers(1, length))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    current = {"ctx": rng.normal(size=(length, 7)).astype(np.float32)}
    updates = [{"ctx.B": rng.normal(size=(rank, 7)).astype(np.float32)} for _ in range(5)]
    mean = {"ctx.B": np.mean([update["ctx.B"] for update in updates], axis=0, dtype=np.float64)}
    basis = columns(length, rank, server_round - 1)
    exact = np.mean([current["ctx"] + basis @ update["ctx.B"] for update in updates], axis=0)
    np.testing.assert_allclose(place(current, mean, server_round)["ctx"], exact, atol=1e-5)


@given(server_round=ROUNDS, seed=st.integers(0, 999))
def test_an_update_is_as_long_as_the_prompts_move(server_round, seed):
    """So a bound on B, and the noise of privacy on it, mean what they say of the prompt."""
    rng = np.random.default_rng(seed)
    current = {"ctx": np.zeros((6, 5), np.float32)}
    update = {"ctx.B": rng.normal(size=(2, 5))}
    moved = place(current, update, server_round)["ctx"]
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(update["ctx.B"]), rel=1e-6)


def test_a_round_without_learning_changes_nothing():
    current = {"b": np.float32([1.5]), "ctx": np.float32([[1, 2], [3, 4]])}
    placed = place(current, {"b": np.array([1.5]), "ctx.B": np.zeros((1, 2))}, 7)
    assert list(placed) == ["b", "ctx"]
    back = RULE.project(placed, current)
    assert all(back.arrays[name].tobytes() == current[name].tobytes() for name in current)
    assert back.truncation_error == 0.0


def test_what_is_trained_whole_is_merged_as_it_is():
    current = {"bias": np.float32([1, 2]), "ctx": np.zeros((2, 3), np.float32)}
    placed = place(current, {"bias": np.array([5.0, 6.0]), "ctx.B": np.ones((1, 3))}, 1)
    np.testing.assert_array_equal(placed["bias"], [5, 6])


def test_other_rules_place_an_update_where_it_is():
    update = {"ctx": np.ones((2, 2))}
    for name in set(RULES) - {"fresh-basis"}:
        assert RULES[name].place({}, update, 3) is update
