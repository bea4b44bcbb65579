"""What all rules share."""

import numpy as np
import pytest

from fedprompt.prompt_state import PromptState, pairs
from server.merge.rules import RULES
from server.merge.rules.rule import identity_lift, identity_project, no_merge_error


def test_pairs_finds_matrices_with_both_factors():
    names = dict.fromkeys(["t.A", "t.B", "v.B", "full", "w.A"], 0)
    assert pairs(names) == ["t"]


def test_identity_lift_widens_and_sorts():
    lifted = identity_lift({"b": np.float32([1]), "a": np.float32([2])})
    assert list(lifted) == ["a", "b"]
    assert lifted["a"].dtype == np.float64


def test_identity_project_restores_order_and_type():
    current = {"b": np.float32([0]), "a": np.float32([0])}
    back = identity_project({"a": np.array([1.0]), "b": np.array([2.0])}, current).arrays
    assert list(back) == ["b", "a"]
    assert back["a"].dtype == np.float32


def test_no_merge_error_is_zero():
    assert no_merge_error([], []) == 0.0


@pytest.mark.parametrize("name", sorted(RULES))
def test_full_matrices_pass_every_rule_unchanged(name):
    arrays = PromptState({"ctx": np.random.default_rng(0).normal(size=(4, 8))})
    rule = RULES[name]
    back = rule.project(rule.lift(arrays), arrays)
    assert back.arrays["ctx"].tobytes() == arrays["ctx"].tobytes()
    assert back.truncation_error == 0.0
