from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.precision.half import overflow_nodes, to_half

WORDS = {"fp16": "float16", "bf16": "bfloat16"}
NUMPY: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def chain() -> onnx.ModelProto:
    """Return y = (x W + b) * b, then y + b; b is read on both sides of the border."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Mul", ["m", "b"], ["t"]),
            helper.make_node("Add", ["t", "b"], ["y"]),
        ],
        "chain",
        [info("images", TensorProto.UINT8, ["batch", 4])],
        [info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(a.astype("f4"), name) for name, a in arrays.items()],
        value_info=[
            info("x", TensorProto.FLOAT, ["batch", 4]),
            info("m", TensorProto.FLOAT, ["batch", 3]),
            info("t", TensorProto.FLOAT, ["batch", 3]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_each_node_computes_in_its_own_type(kind: Any) -> None:
    """By hand in numpy: two nodes short, the last in fp32 on a widened t and b as it was."""
    model = chain()
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = to_half(model, kind, exact=())
    assert model == chain()
    onnx.checker.check_model(found, full_check=True)
    assert [n.op_type for n in found.graph.node] == ["Cast", "MatMul", "Mul", "Cast", "Add"]
    assert {t.name for t in found.graph.initializer} == {"b", *(
        f"{n}/{WORDS[kind]}" for n in "wb"
    )}  # fmt: skip
    images, short = np.array([[1, 2, 3, 4], [200, 0, 7, 255]], np.uint8), NUMPY[kind]
    w, b = arrays["w"].astype(short), arrays["b"].astype(short)
    t = ((images.astype(short) @ w).astype(short) * b).astype(short).astype(np.float32)
    (answer,) = ReferenceEvaluator(found).run(None, {"images": images})
    # one unit of the last place of sums: the evaluator may add in another order
    unit = 2.0**-10 if kind == "fp16" else 2.0**-7
    np.testing.assert_allclose(answer, t + arrays["b"], rtol=4 * unit, atol=unit)
    assert answer.dtype == np.float32


def test_named_nodes_stay_exact() -> None:
    model = chain()
    found = to_half(model, "fp16", exact={"x", "m", "t"})
    assert found.graph.node == model.graph.node
    assert found.graph.initializer == model.graph.initializer


@pytest.mark.parametrize("name", ["fused", "plain"])
def test_a_whole_graph_is_valid_and_near(
    name: str, request: pytest.FixtureRequest, images: Any, run: Any
) -> None:
    model = request.getfixturevalue(name)
    short = to_half(model, "fp16", exact=())
    assert short.ByteSize() < 0.65 * model.ByteSize()
    difference = np.abs(run(short, images) - run(model, images)).max()
    assert 0 < difference < 0.1  # logits of 15; fp16 has 11 bits


def test_nothing_overflows_in_a_sound_graph(fused: onnx.ModelProto, images: Any) -> None:
    assert overflow_nodes(fused, images) == set()


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
    names = overflow_nodes(model, images)
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
    assert "logits" in overflow_nodes(model, images[:0])
