from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.precision import rewrite_to
from fedprompt.errors import GraphError


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {t.name: t.data_type for t in model.graph.initializer}


@pytest.mark.parametrize("rewrite", ["fp16", "bf16", "int8-dynamic", "int8-static"])
@pytest.mark.parametrize("flavour", ["fused", "plain"])
def test_the_head_stays_in_fp32(
    rewrite: Any, flavour: str, request: pytest.FixtureRequest, images: Any
) -> None:
    model = rewrite_to(request.getfixturevalue(flavour), rewrite, images)
    found = types(model)
    assert found["head/projection"] == found["head/classes"] == TensorProto.FLOAT
    assert all(o.type.tensor_type.elem_type == TensorProto.FLOAT for o in model.graph.output)
    ends = ("up/weight/float16", "up/weight/bfloat16", "up/weight_quantized")
    short = {kind for name, kind in found.items() if name.endswith(ends)}
    assert short <= {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8}
    assert len(short) == 1


@pytest.mark.parametrize("rewrite", ["int8-dynamic", "int8-static"])
def test_int8_leaves_pixels_alone_and_takes_every_other_weight(
    rewrite: Any, fused: onnx.ModelProto, images: Any
) -> None:
    model = rewrite_to(fused, rewrite, images)
    kept = {n.input[1] for n in model.graph.node if n.op_type == "MatMul"}
    floats = {name for name in kept if types(model).get(name) == TensorProto.FLOAT}
    assert floats == {"patches/weight", "head/projection", "head/classes"}
    assert sum(kind == TensorProto.INT8 for kind in types(model).values()) >= 8


def test_norms_and_softmax_of_their_own_stay_in_fp32(plain: onnx.ModelProto, images: Any) -> None:
    model = rewrite_to(plain, "fp16", images)
    found = {i.name: i.type.tensor_type.elem_type for i in model.graph.value_info}
    exact = [n for n in model.graph.node if n.op_type in ("LayerNormalization", "Softmax")]
    assert len(exact) >= 6
    assert {found[n.output[0]] for n in exact} == {TensorProto.FLOAT}


@pytest.mark.parametrize("rewrite", ["fp16", "int8-dynamic", "int8-static"])
def test_answers_stay_near(rewrite: Any, fused: onnx.ModelProto, images: Any, run: Any) -> None:
    """Random weights, logits from -15 to 15: a dropped scale or bias would be far off."""
    found = run(rewrite_to(fused, rewrite, images), images)
    bound = 0.05 if rewrite == "fp16" else 0.5
    assert 0 < np.abs(found - run(fused, images)).max() < bound


def test_what_overflows_stays_in_fp32(fused: onnx.ModelProto, images: Any, run: Any) -> None:
    """A million times what block 0 adds: fp16 has no such numbers, and norms take it out again."""
    model = onnx.ModelProto()
    model.CopyFrom(fused)
    for tensor in model.graph.initializer:
        factor = {"block_0/mlp/down/weight": 1e6, "block_0/mlp/down/bias": 1e6}.get(tensor.name, 1)
        values = onnx.numpy_helper.to_array(tensor)
        if factor != 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(factor), tensor.name))
    expected = run(model, images)
    found = run(rewrite_to(model, "fp16", images), images)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=0.1)
    blind = run(rewrite_to(model, "fp16", images[:0]), images)  # weights alone: some overflow
    assert not np.allclose(blind, expected, atol=0.1)


def test_calibration_without_images_is_told(fused: onnx.ModelProto, images: Any) -> None:
    with pytest.raises(GraphError, match="give --data"):
        rewrite_to(fused, "int8-static", images[:0])


def test_fp32_is_the_graph_itself(fused: onnx.ModelProto, images: Any) -> None:
    assert rewrite_to(fused, "fp32", images) is fused
