"""Read a finished graph, and write it again node by node."""

from collections.abc import Callable, Iterator

import onnx

from export.graph.builder import Graph, Shape

HEAD = ("head/", "image_embeds")  # what the head's first tensor may be called
Change = Callable[[Graph, onnx.NodeProto], bool]


def rewrite(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """Return the graph with some nodes replaced.

    ``change`` is asked for every node in order; it appends what stands for the node and says True,
    or says False and the node stays.
    """
    graph = Graph()
    graph.adopt(_without_nodes(model), {info.name: shape_of(info) for info in model.graph.output})
    for node in model.graph.node:
        if not change(graph, node):
            graph.keep(node)
    return graph.model(shape_of(model.graph.input[0]), [info.name for info in model.graph.output])


def types_of(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return the types of all tensors that the graph's nodes make, by name."""
    return {info.name: info for info in [*model.graph.value_info, *model.graph.output]}


def head_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Iterate over the nodes behind the tower: the projection and all that follows."""
    begun = False
    for node in model.graph.node:
        begun = begun or node.output[0].startswith(HEAD)
        if begun:
            yield node


def _without_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    return copy


def shape_of(info: onnx.ValueInfoProto) -> Shape:
    """Return the shape of a tensor."""
    return tuple(d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim)
