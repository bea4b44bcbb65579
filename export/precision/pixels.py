"""Centre the pixels before they are weighed, so that a half-precision kernel keeps its digits.

    W x + c  =  (128 W) ((x - 128) / 128) + (c + 128 sum_i W_i)

x is a byte. Where normalisation is folded into the kernel, W is K / (255 s), of which fp16 keeps
few digits: it is subnormal there. 128 W is not, and (x - 128) / 128 is exact in fp16.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.builder import Graph
from export.graph.patch_embedding import ADDED, PIXELS, WEIGHT
from export.precision.rewriting import rewrite

_CENTRE = 128.0


def centre_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with centred pixels; one without folded normalisation is as it was."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if WEIGHT not in constants:
        return model
    centred = rewrite(model, _centre)
    for tensor in centred.graph.initializer:
        if tensor.name in (WEIGHT, ADDED):
            weight = numpy_helper.to_array(constants[WEIGHT]).astype(np.float64) * _CENTRE
            values = weight
            if tensor.name == ADDED:
                values = numpy_helper.to_array(tensor).astype(np.float64)
                values[:, 1:] += weight.sum(0)  # behind the class token's row
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return centred


def _centre(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.output[0] != PIXELS:
        return False
    shape = graph.shape(PIXELS)
    (cast,) = (a.i for a in node.attribute if a.name == "to")
    whole = graph.add("Cast", list(node.input), shape, name=f"{PIXELS}/whole", to=cast)
    centre = graph.constant(f"{PIXELS}/centre", _CENTRE)
    moved = graph.add("Sub", [whole, centre], shape, name=f"{PIXELS}/moved")
    graph.add("Div", [moved, centre], shape, name=PIXELS)
    return True
