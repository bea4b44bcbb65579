from typing import Any

import numpy as np
from onnx import numpy_helper

from export.precision.int8_static import quantise_statically
from export.precision.pair_range import quantise_columns


def test_inputs_keep_the_range_that_calibration_saw(product: Any, run: Any) -> None:
    """By hand: symmetric steps of 100/127 for inputs, and above 100 the input is cut off."""
    model, weight = product
    rng = np.random.default_rng(1)
    calibration = rng.integers(0, 100, (20, 16), dtype=np.uint8)
    calibration[0, 0] = 100
    images = rng.integers(0, 75, (5, 16), dtype=np.uint8) * 2 + 1  # none half-way between steps
    before = model.SerializeToString()
    quantised = quantise_statically(model, (), calibration)
    assert model.SerializeToString() == before
    step = 100 / 127
    inputs = np.clip(np.rint(images / step), -128, 127) * step
    values, scale = quantise_columns(weight.astype("f4"))
    expected = inputs @ values.astype(np.float64) * scale
    np.testing.assert_allclose(run(quantised, images), expected, rtol=1e-5)
    cut = run(quantised, np.full((1, 16), 255, np.uint8))
    np.testing.assert_array_equal(cut, run(quantised, np.full((1, 16), 120, np.uint8)))


def test_zero_points_are_zero_and_named_products_stay(product: Any) -> None:
    model, _ = product
    calibration = np.random.default_rng(1).integers(0, 100, (20, 16), dtype=np.uint8)
    quantised = quantise_statically(model, (), calibration)
    points = [t for t in quantised.graph.initializer if t.name.endswith("zero_point")]
    assert points
    assert all(not numpy_helper.to_array(t).any() for t in points)
    kept = quantise_statically(model, {"logits"}, calibration)
    assert [node.op_type for node in kept.graph.node] == ["Cast", "MatMul"]
