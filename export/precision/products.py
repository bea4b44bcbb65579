"""Take the projections out of ONNX Runtime's Attention, so that they are a product like any other.

    Attention(X, W, b)  =  MultiHeadAttention(Q, K, V, b),    [Q K V] = X W

A quantiser then finds a plain MatMul. ONNX Runtime's own quantised attention is left alone: its
numbers differ between CPU and CUDA.
"""

import onnx

from export.graph.builder import CONTRIB, Graph
from export.precision.rewriting import rewrite


def separate_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without any Attention; it answers the same."""
    return rewrite(model, _separate)


def _separate(graph: Graph, node: onnx.NodeProto) -> bool:
    if (node.domain, node.op_type) != (CONTRIB, "Attention"):
        return False
    (rows, weight, bias), name = node.input, node.output[0]
    *outer, width = graph.shape(name)
    whole, part = (*outer, 3 * int(width)), (*outer, int(width))
    packed = graph.add("MatMul", [rows, weight], whole, name=f"{name}/packed")
    parts = graph.add_many(
        "Split",
        [packed, graph.integers(*[int(width)] * 3)],
        {f"{name}/{kind}": part for kind in ("query", "key", "value")},
        axis=-1,
    )
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    graph.add("MultiHeadAttention", [*parts, bias], part, name=name, domain=CONTRIB, **settings)
    return True
