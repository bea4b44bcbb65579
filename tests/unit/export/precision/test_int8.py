from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper

from export.fold.constants import Constants
from export.graph.fuse import fuse
from export.precision import rewrite_to
from export.precision.int8 import quantise_columns, quantise_dynamically, quantise_statically


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


LARGEST = 32767


def neighbours(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Return what two neighbours of a column give at most, for inputs of 0 ... 255."""
    one, other = weight[:-1].astype(np.int32), weight[1:].astype(np.int32)
    highest = np.maximum(one, 0) + np.maximum(other, 0)
    lowest = np.minimum(one, 0) + np.minimum(other, 0)
    found: npt.NDArray[np.int32] = 255 * np.stack([highest, -lowest])
    return found


@pytest.mark.parametrize("rewrite", ["int8-dynamic", "int8-static"])
def test_no_pair_of_products_of_an_exported_file_saturates(
    tiny_clip: Any, constants: Constants, images: Any, rewrite: Any
) -> None:
    """So an int8 file gives the same sums on AVX2, where they are of 16 bits."""
    clip = tiny_clip()
    model: onnx.ModelProto = rewrite_to(fuse(clip, constants, "portable"), rewrite, images)
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(weights) >= 2 * clip.model.visual.transformer.layers
    for weight in weights:
        assert neighbours(weight).max() <= LARGEST
        assert neighbours(weight).max() > 0.9 * LARGEST  # the range is used


values = st.floats(-1e3, 1e3, width=32)


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=values))
def test_any_weights_stay_in_range_and_close(weight: npt.NDArray[np.float32]) -> None:
    found, scale = quantise_columns(weight)
    assert found.shape == weight.shape
    assert scale.shape == weight.shape[1:]
    assert (scale > 0).all()
    if len(weight) > 1:
        assert neighbours(found).max() <= LARGEST
    np.testing.assert_allclose(found * scale, weight, atol=0.51 * scale.max() + 1e-37)


@pytest.mark.parametrize("sign", [1, -1])
def test_columns_of_equal_weights_are_the_worst(sign: int) -> None:
    found, scale = quantise_columns(np.full((8, 2), sign * 3.0, np.float32))
    assert neighbours(found).max() <= LARGEST
    np.testing.assert_allclose(found * scale, sign * 3.0, rtol=0.01)
