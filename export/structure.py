"""Check every node and tensor of an ONNX file, where the onnx package is installed (F26)."""

from collections.abc import Iterator
from typing import Any

import onnx

from export.graph import CONTRIB
from export.safety import check_bytes
from fedprompt.errors import GraphError

# of ONNX Runtime's own operators, those that some step of the exporter writes
CONTRIB_OPERATORS = frozenset(
    {
        "Attention",
        "BiasGelu",
        "FastGelu",
        "MultiHeadAttention",
        "QuickGelu",
        "SkipLayerNormalization",
    }
)


def parse_model(data: bytes, where: str = "the graph") -> onnx.ModelProto:
    """Return the model of some bytes, every part of it checked.

    Raises
    ------
    GraphError
        The bytes are damaged, or a tensor lies outside, or an operator is not on the list.
    """
    check_bytes(data, where)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError, whose package has no types
        raise GraphError(f"{where} is damaged or no ONNX file: {error}") from None
    check_model(model, where)
    return model


def check_model(model: onnx.ModelProto, where: str) -> None:
    """Check every part of a model, subgraphs and functions too.

    Raises
    ------
    GraphError
        A tensor lies outside, an operator is not on the list, or the model is not valid ONNX.
    """
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            _check_tensor(message, where)
        elif isinstance(message, onnx.NodeProto):
            _check_node(message, where)
    if model.functions:
        raise GraphError(f"{where} defines functions of its own; expected plain operators: refused")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise GraphError(f"{where} is not valid ONNX: {str(error).strip()[:200]}") from None


def _messages(message: Any) -> Iterator[Any]:
    """Walk every message inside: subgraphs, functions, attributes and sparse tensors too."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            many = (
                value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]
            )
            for part in many:
                yield from _messages(part)


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise GraphError(f"{where} keeps tensor {tensor.name!r} in another file: refused")


def _check_node(node: onnx.NodeProto, where: str) -> None:
    standard = node.domain in ("", "ai.onnx")
    if not standard and (node.domain != CONTRIB or node.op_type not in CONTRIB_OPERATORS):
        raise GraphError(
            f"{where} uses operator {node.domain}:{node.op_type}; allowed are standard ones and "
            f"{', '.join(sorted(CONTRIB_OPERATORS))}: refused"
        )
