import onnx
import pytest

from export.graph.validate_graph import parse_model
from export.targets.classifier import Written
from fedprompt.errors import GraphError


def test_our_own_files_pass(written: Written) -> None:
    model = parse_model(written.path.read_bytes())
    assert len(model.graph.node) == written.nodes


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
