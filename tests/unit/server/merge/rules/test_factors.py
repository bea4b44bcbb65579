"""Rule `factors`: the baseline, and how far it lies from the exact average."""

import numpy as np
import pytest

from fedprompt.prompt_state import PromptState
from server.merge.rules import RULES
from server.merge.rules.factors import RULE, merge_error


def sites(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"ctx.A": rng.normal(size=(4, 1)), "ctx.B": rng.normal(size=(1, 512))} for _ in range(count)
    ]


def test_ten_independent_sites_lose_nearly_everything():
    """methods.md: 98 % relative error for ten independent rank-1 sites; the product loses none."""
    errors = [merge_error(sites(10, seed), [1.0] * 10) for seed in range(20)]
    assert 0.9 < float(np.mean(errors)) < 1.1


def test_the_product_rule_keeps_the_best_rank_where_factors_do_not():
    updates = sites(10)
    arrays = PromptState(updates[0])
    rule = RULES["product"]
    lifted = [rule.lift(PromptState(update)) for update in updates]
    dense = {"ctx": np.mean([u["ctx"] for u in lifted], axis=0)}
    assert rule.project(dense, arrays).truncation_error < merge_error(updates, [1.0] * 10)


def test_equal_sites_lose_nothing():
    one = sites(1)[0]
    assert merge_error([one, one], [1.0, 5.0]) == pytest.approx(0.0, abs=1e-12)


def test_nothing_low_rank_means_no_error():
    assert merge_error([{"ctx": np.ones((4, 8))}], [1.0]) == 0.0


def test_lift_and_project_are_the_identity():
    arrays = PromptState({"ctx.B": np.float32([[1, 2]]), "ctx.A": np.float32([[3], [4]])})
    back = RULE.project(RULE.lift(arrays), arrays)
    assert list(back.arrays) == list(arrays)
    assert all(back.arrays[n].tobytes() == arrays[n].tobytes() for n in arrays)
    assert back.truncation_error == 0.0
