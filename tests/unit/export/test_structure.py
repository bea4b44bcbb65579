import onnx
import pytest

from export.structure import CONTRIB_OPERATORS, parse_model
from export.write import Written
from fedprompt.errors import GraphError


def test_our_own_files_pass(written: Written) -> None:
    model = parse_model(written.path.read_bytes())
    own = {node.op_type for node in model.graph.node if node.domain}
    assert own
    assert own <= CONTRIB_OPERATORS


def test_an_operator_inside_a_branch_is_found() -> None:
    made = onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [1])
    evil = onnx.helper.make_node("Shell", ["x"], ["o"], domain="com.evil")
    branch = onnx.helper.make_graph([evil], "b", [], [made])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(GraphError, match=r"com\.evil:Shell"):
        parse_model(model.SerializeToString())


def test_a_graph_that_is_not_valid_is_refused() -> None:
    node = onnx.helper.make_node("Relu", ["nowhere"], ["y"])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [made]))
    with pytest.raises(GraphError, match="not valid ONNX"):
        parse_model(model.SerializeToString(), "a file")


def test_bytes_that_are_no_model_are_refused() -> None:
    for data in (b"\xff" * 40, b"hello", b""):
        with pytest.raises(GraphError):
            parse_model(data)
