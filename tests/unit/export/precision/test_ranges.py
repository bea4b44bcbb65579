from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from export.precision.ranges import overflowing


def test_nothing_overflows_in_a_sound_graph(fused: onnx.ModelProto, images: Any) -> None:
    assert overflowing(fused, images) == set()


@pytest.mark.parametrize(("factor", "found"), [(1e4, True), (1.0, False)])
def test_a_large_tensor_names_its_maker_and_its_readers(
    fused: onnx.ModelProto, images: Any, factor: float, found: bool
) -> None:
    """Large weights before a norm: what they make overflows, what the norm makes does not."""
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    for tensor in model.graph.initializer:
        if tensor.name == "block_0/out/weight":
            values = numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(numpy_helper.from_array(values.astype("f4"), tensor.name))
    names = overflowing(model, images)
    assert ({"block_0/out", "block_0/norm_2"} <= names) is found
    assert "block_0/mlp/up" not in names


def test_a_constant_alone_may_be_too_large(fused: onnx.ModelProto, images: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    for tensor in model.graph.initializer:
        if tensor.name == "head/classes":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0] = 7e4
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert "logits" in overflowing(model, images[:0])
