"""Rule `shared-basis`: with one A for all sites, averaging B averages the product exactly."""

import numpy as np

from server.merge.rules import RULES


def test_averaging_b_averages_the_product():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(4, 2))
    updates = [{"ctx.B": rng.normal(size=(2, 16)).astype(np.float32)} for _ in range(5)]
    rule = RULES["shared-basis"]
    lifted = [rule.lift(update) for update in updates]
    merged = {"ctx.B": np.mean([u["ctx.B"] for u in lifted], axis=0)}
    projection = rule.project(merged, updates[0])
    exact = np.mean([basis @ u["ctx.B"] for u in updates], axis=0)
    np.testing.assert_allclose(basis @ projection.arrays["ctx.B"], exact, atol=1e-6)
    assert projection.truncation_error == rule.merge_error(lifted, [1.0] * 5) == 0.0
