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
from export.precision.chain import rewrite_to
from export.precision.pair_range import quantise_columns

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
