"""Find what does not fit into fp16, by running real images through the graph."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.fold.types import Pictures
from export.precision.rewriting import types_of
from export.runtime.providers import CPU
from export.runtime.session import start_trusted

LARGEST = float(np.finfo(np.float16).max)
_MARGIN = 4  # images not seen may give larger numbers
_BATCH = 16


def overflowing(model: onnx.ModelProto, images: Pictures) -> set[str]:
    """Return the nodes, by first output, that read or make numbers too large for fp16."""
    large = _large_constants(model)
    for begin in range(0, len(images), _BATCH):
        large |= _large_tensors(model, images[begin : begin + _BATCH])
    return {
        node.output[0]
        for node in model.graph.node
        if large.intersection([*node.input, *node.output])
    }


def _large_constants(model: onnx.ModelProto) -> set[str]:
    floats = (t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    return {tensor.name for tensor in floats if _is_large(numpy_helper.to_array(tensor))}


def _large_tensors(model: onnx.ModelProto, images: Pictures) -> set[str]:
    """Return the float tensors that are large for some image, every one an output for once."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = {info.name for info in shown.graph.output}
    infos = types_of(model)
    names = [n for n, i in infos.items() if i.type.tensor_type.elem_type == TensorProto.FLOAT]
    shown.graph.output.extend(infos[name] for name in names if name not in there)
    found = start_trusted(shown.SerializeToString(), [CPU]).run(names, {"images": images})
    return {name for name, values in zip(names, found, strict=True) if _is_large(values)}


def _is_large(values: np.ndarray) -> bool:
    return bool(values.size and np.abs(values).max() > LARGEST / _MARGIN)
