import numpy as np
import onnx
import onnxruntime

from export.graph.builder import BATCH, CONTRIB, Graph


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: list[np.ndarray] = session.run(None, {"images": images})  # type: ignore[type-arg]
    return found


def test_operators_constants_and_types_become_a_model() -> None:
    graph = Graph()
    pixels = graph.add("Cast", ["images"], (BATCH, 2), name="pixels", to=onnx.TensorProto.FLOAT)
    factor = graph.constant("factor", np.float64(0.5))
    graph.add("Mul", [pixels, factor], (BATCH, 2), name="half")
    assert graph.integers(1, 2) == graph.integers(1, 2)
    model = graph.model((BATCH, 2), ["half"])
    (found,) = run(model, np.array([[2, 4]], np.uint8))
    np.testing.assert_array_equal(found, [[1, 2]])
    assert [info.name for info in model.graph.value_info] == ["pixels"]
    assert [opset.domain for opset in model.opset_import] == [""]
    assert len([c for c in model.graph.initializer if c.name == "int_1_2"]) == 1


def test_unused_outputs_are_skipped_and_domains_are_declared() -> None:
    graph = Graph()
    shape = (BATCH, 1, 4)
    pixels = graph.add("Cast", ["images"], shape, name="pixels", to=onnx.TensorProto.FLOAT)
    one = graph.constant("one", np.ones(4))
    outputs = {"normed": shape, "sum": shape}
    names = graph.add_many(
        "SkipLayerNormalization", [pixels, pixels, one], outputs, skipped=2, domain=CONTRIB
    )
    assert names == ["normed", "sum"]
    model = graph.model(shape, ["sum"])
    assert list(model.graph.node[1].output) == ["normed", "", "", "sum"]
    assert {opset.domain for opset in model.opset_import} == {"", CONTRIB}
    (found,) = run(model, np.array([[[1, 2, 3, 4]]], np.uint8))
    np.testing.assert_array_equal(found, [[[2, 4, 6, 8]]])


def test_another_model_is_adopted() -> None:
    first = Graph()
    first.add("Cast", ["images"], (BATCH, 2), name="pixels", to=onnx.TensorProto.FLOAT)
    graph = Graph()
    graph.adopt(first.model((BATCH, 2), ["pixels"]), {"pixels": (BATCH, 2)})
    graph.add("Neg", ["pixels"], (BATCH, 2), name="negative")
    (found,) = run(graph.model((BATCH, 2), ["negative"]), np.array([[1, 2]], np.uint8))
    np.testing.assert_array_equal(found, [[-1, -2]])
