"""What is special about factors is tested with the rule that needs it, in server/rules."""

import numpy as np
import pytest

from fedprompt.dense import products
from fedprompt.factors import nearest


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
