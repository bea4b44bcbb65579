"""Parse what was exported with the onnx package, where the exporter reads or finishes a graph."""

import onnx

from export.runtime.safety.safe_graph import SafeGraph
from fedprompt.errors import GraphError


def parse_model(data: bytes, where: str = "the graph") -> onnx.ModelProto:
    """Return the model of some bytes, every part of it checked.

    Raises
    ------
    GraphError
        The bytes are damaged or unsafe, or the model is not valid ONNX.
    """
    try:
        SafeGraph(data)
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except (GraphError, onnx.checker.ValidationError, ValueError) as error:
        raise GraphError(f"{where} is not valid: {str(error).strip()[:300]}") from None
    return model


def check_model(model: onnx.ModelProto, where: str) -> None:
    """Check every part of a model that is to be written; the errors are those of `parse_model`."""
    parse_model(model.SerializeToString(), where)
