from pathlib import Path

import pytest
from onnx import TensorProto, helper

from export.runtime.providers import CPU
from export.runtime.session import open_classifier, start
from fedprompt.errors import GraphError
from tests.unit.export.runtime.test_metadata import METADATA


def test_a_session_and_its_metadata(classifier_file: Path) -> None:
    session, metadata = open_classifier(classifier_file.read_bytes(), provider="cpu", threads=1)
    assert session.get_providers() == [CPU]
    assert len(metadata.classes) == 5


def test_bytes_that_are_no_graph_are_explained(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GraphError, match="the graph is not opened"):
        start(b"no graph", [CPU])
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""  # one line of ours, none of the library's


@pytest.mark.parametrize("vectors", [["classes"], ["classes", 24, 1], ["classes", "joint"]])
def test_class_vectors_of_another_shape_are_refused(vectors: list[str | int]) -> None:
    """A graph that takes them, and answers as many numbers as it is asked for."""
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Shape", ["class_vectors"], ["classes"], start=0, end=1),
        helper.make_node("Concat", ["batch", "classes"], ["both"], axis=0),
        helper.make_node("Expand", ["zero", "both"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 32, 32, 3]),
        helper.make_tensor_value_info("class_vectors", TensorProto.FLOAT, vectors),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "classes"])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0])
    graph = helper.make_graph(nodes, "changed", inputs, [logits], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, METADATA.to_properties())
    with pytest.raises(GraphError, match=r"expected float \[classes joint\]"):
        open_classifier(model.SerializeToString(), provider="cpu", threads=1)
