import numpy as np
import onnx
import onnxruntime
import pytest
from torch import from_numpy
from torch.nn.functional import normalize

from export.graph.builder import BATCH, CONTRIB, Graph, parse_model
from export.targets.classifier import Exported
from fedprompt.errors import GraphError


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


@pytest.mark.parametrize("inner", [(), (3,)])
def test_rows_are_made_of_length_one_as_torch_does(inner: tuple[int, ...]) -> None:
    shape = (BATCH, *inner, 8)
    graph = Graph()
    raw = graph.add("Cast", ["images"], shape, name="raw", to=onnx.TensorProto.FLOAT)
    graph.l2_normalise(raw, name="unit")
    model = graph.model(shape, ["unit"])
    onnx.checker.check_model(model, full_check=True)
    rows = np.random.default_rng(0).integers(0, 256, (4, *inner, 8), dtype=np.uint8)
    rows[1] = 0  # of no length: stays zero, not NaN
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"images": rows})
    expected = normalize(from_numpy(rows.astype(np.float32)), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not found[1].any()


def test_our_own_files_pass(written: Exported) -> None:
    model = parse_model(written.path.read_bytes())
    assert len(model.graph.node) == written.conversion.nodes


def test_a_graph_that_is_not_valid_is_refused() -> None:
    read = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 1])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["batch", 1])
    node = onnx.helper.make_node("Cast", ["x"], ["y"], to=1)
    for name in ("y", "nowhere"):
        made.name = name
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node, node], "g", [read], [made]),
            opset_imports=[onnx.helper.make_opsetid("", 20)],
        )
        with pytest.raises(GraphError, match="a file is not valid"):
            parse_model(model.SerializeToString(), "a file")


def test_bytes_that_are_no_model_are_refused() -> None:
    for data in (b"\xff" * 40, b"hello", b""):
        with pytest.raises(GraphError):
            parse_model(data)
