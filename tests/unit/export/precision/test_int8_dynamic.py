from typing import Any

import numpy as np

from export.precision.int8_dynamic import quantise_dynamically
from export.precision.pair_range import quantise_columns


def test_weights_have_a_scale_a_column(product: Any, run: Any) -> None:
    """By hand: bytes with a zero point of 0 are exact, each column is rounded to its own steps."""
    model, weight = product
    images = np.random.default_rng(1).integers(0, 256, (5, 16), dtype=np.uint8)
    images[0, 0] = 255  # so that the input's step is one
    found = run(quantise_dynamically(model, ()), images)
    values, scale = quantise_columns(weight.astype("f4"))
    expected = images.astype(np.int64) @ values.astype(np.int64) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - images @ weight).max() > 0


def test_named_products_and_the_graph_given_stay(product: Any, run: Any) -> None:
    model, _ = product
    before = model.SerializeToString()
    kept = quantise_dynamically(model, {"logits"})
    assert model.SerializeToString() == before
    assert [node.op_type for node in kept.graph.node] == ["Cast", "MatMul"]
