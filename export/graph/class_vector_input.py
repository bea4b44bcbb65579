"""Make the class vectors of a fused classifier an input: logits = s z C' + b with C given."""

import onnx
from onnx import TensorProto, helper

from export.graph.text_encoder import VECTORS
from fedprompt.errors import GraphError

_FOLDED = "head/classes"  # what `export.graph.head` calls (s C)'


def open_classes(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """Put one Gemm with the input ``class_vectors`` [classes joint] in place of the folded product.

    Raises
    ------
    GraphError
        The graph has no class vectors of its own.
    """
    graph = model.graph
    folded = [(i, node) for i, node in enumerate(graph.node) if _FOLDED in node.input]
    if len(folded) != 1:
        raise GraphError("the graph holds no class vectors that could become an input")
    [(place, product)] = folded
    embeds, joint = product.input[0], _take_shape(graph, _FOLDED)[0]
    graph.node.remove(product)
    gemm = helper.make_node(
        "Gemm", [embeds, VECTORS], product.output, product.name, alpha=float(scale), transB=1
    )
    graph.node.insert(place, gemm)
    given = helper.make_tensor_value_info(VECTORS, TensorProto.FLOAT, ("classes", joint))
    graph.input.append(given)
    for info in (*graph.value_info, *graph.output):
        if info.name in (product.output[0], "logits"):
            info.type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.checker.check_model(model, full_check=True)
    return model


def _take_shape(graph: onnx.GraphProto, name: str) -> list[int]:
    """Remove a constant and return its shape."""
    [constant] = [tensor for tensor in graph.initializer if tensor.name == name]
    shape = list(constant.dims)
    graph.initializer.remove(constant)
    return shape
