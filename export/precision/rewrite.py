"""Rewrite a finished graph node by node, and the two rewrites that precede a shorter precision."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.builder import CONTRIB, Graph, shape_of
from export.graph.image_tower import ADDED, PIXELS, WEIGHT

_HEAD = ("head/", "image_embeds")  # what the head's first tensor may be called
_CENTRE = 128.0
Change = Callable[[Graph, onnx.NodeProto], bool]


def rewrite(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """Return the graph with some nodes replaced.

    ``change`` is called with every node in order; it appends what replaces the node and returns
    True, or returns False and the node stays.
    """
    without_nodes = onnx.ModelProto()
    without_nodes.CopyFrom(model)
    del without_nodes.graph.node[:]
    graph = Graph()
    graph.adopt(without_nodes, {info.name: shape_of(info) for info in model.graph.output})
    for node in model.graph.node:
        if not change(graph, node):
            graph.keep(node)
    return graph.model(shape_of(model.graph.input[0]), [info.name for info in model.graph.output])


def types_of(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return the types of all tensors that the graph's nodes make, by name."""
    return {info.name: info for info in [*model.graph.value_info, *model.graph.output]}


def head_nodes(model: onnx.ModelProto) -> set[str]:
    """Return the nodes behind the tower by first output: the projection and all that follows."""
    outputs = [node.output[0] for node in model.graph.node]
    begin = next((i for i, name in enumerate(outputs) if name.startswith(_HEAD)), len(outputs))
    return set(outputs[begin:])


def split_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the projections out of ONNX Runtime's Attention, so that a quantiser finds a MatMul.

        Attention(X, W, b)  =  MultiHeadAttention(Q, K, V, b),    [Q K V] = X W

    ONNX Runtime's own quantised attention is not used: its numbers differ between CPU and CUDA.
    """

    def split(graph: Graph, node: onnx.NodeProto) -> bool:
        if (node.domain, node.op_type) != (CONTRIB, "Attention"):
            return False
        rows, weight, bias = node.input
        name = node.output[0]
        *outer, width = graph.shape(name)
        width = int(width)
        whole, part = (*outer, 3 * width), (*outer, width)
        packed = graph.add("MatMul", [rows, weight], whole, name=f"{name}/packed")
        parts = graph.add_many(
            "Split",
            [packed, graph.integers(width, width, width)],
            {f"{name}/{kind}": part for kind in ("query", "key", "value")},
            axis=-1,
        )
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        graph.add("MultiHeadAttention", [*parts, bias], part, name=name, domain=CONTRIB, **settings)
        return True

    return rewrite(model, split)


def centre_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Centre the pixels before they are weighed, so that a half-precision kernel keeps its digits.

        W x + c  =  (128 W) ((x - 128) / 128) + (c + 128 sum_i W_i)

    x is a byte. Where normalisation is folded into the kernel, W is K / (255 s), of which fp16
    keeps few digits: it is subnormal there. 128 W is not, and (x - 128) / 128 is exact in fp16.
    A graph without folded normalisation is returned as it is.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if WEIGHT not in constants:
        return model

    def centre(graph: Graph, node: onnx.NodeProto) -> bool:
        if node.output[0] != PIXELS:
            return False
        shape = graph.shape(PIXELS)
        [kind] = (a.i for a in node.attribute if a.name == "to")
        whole = graph.add("Cast", list(node.input), shape, name=f"{PIXELS}/whole", to=kind)
        middle = graph.constant(f"{PIXELS}/centre", _CENTRE)
        moved = graph.add("Sub", [whole, middle], shape, name=f"{PIXELS}/moved")
        graph.add("Div", [moved, middle], shape, name=PIXELS)
        return True

    centred = rewrite(model, centre)
    weight = numpy_helper.to_array(constants[WEIGHT]).astype(np.float64) * _CENTRE
    added = numpy_helper.to_array(constants[ADDED]).astype(np.float64)
    added[:, 1:] += weight.sum(0)  # behind the class token's row
    for tensor in centred.graph.initializer:
        if tensor.name in (WEIGHT, ADDED):
            values = weight if tensor.name == WEIGHT else added
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return centred
