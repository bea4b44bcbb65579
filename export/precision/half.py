"""Compute in fp16 or bf16, all but the nodes that are named, such as those fp16 cannot hold.

Every float tensor that a converted node reads or makes is of the short type; a Cast stands where
such a tensor meets a node that stays in fp32. ONNX Runtime's own converter
(onnxruntime.transformers.float16) knows no bfloat16.
"""

from collections.abc import Collection
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.fold.types import Pictures
from export.precision.rewrite import types_of
from export.runtime.providers import CPU
from export.runtime.session import start_trusted

_FLOAT = TensorProto.FLOAT
_KINDS: dict[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY: dict[int, Any] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}
_MARGIN = 4  # images not seen may give larger numbers
_LARGEST = float(np.finfo(np.float16).max) / _MARGIN
_BATCH = 16


def to_half(
    model: onnx.ModelProto, precision: Literal["fp16", "bf16"], exact: Collection[str]
) -> onnx.ModelProto:
    """Return the graph in half precision.

    Nodes whose first output is in ``exact`` stay in fp32, and those that make the graph's outputs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    exact = {*exact, *(info.name for info in copy.graph.output)}
    kind = _KINDS[precision]
    converter = _Converter(copy, kind)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        converter.convert(node, _FLOAT if node.output[0] in exact else kind)
    converter.drop_unread()
    return copy


class _Converter:
    """Append nodes in one of two float types, with casts between them."""

    def __init__(self, model: onnx.ModelProto, kind: int) -> None:
        self._graph, self._short = model.graph, kind
        self._infos = types_of(model)
        self._types = {n: i.type.tensor_type.elem_type for n, i in self._infos.items()}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: set[str] = set()

    def convert(self, node: onnx.NodeProto, kind: int) -> None:
        """Append a node that computes in ``kind``."""
        for place, name in enumerate(node.input):
            node.input[place] = self._as(name, kind)
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", _FLOAT):
                attribute.i = kind
        for name in node.output:
            if self._types.get(name) == _FLOAT:
                self._types[name] = kind
                self._infos[name].type.tensor_type.elem_type = kind
        self._graph.node.append(node)

    def drop_unread(self) -> None:
        """Take out constants of which only the converted copy is read."""
        read = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _as(self, name: str, kind: int) -> str:
        """Return the name of a float tensor in ``kind``, made if it is not there."""
        constant = self._constants.get(name)
        current = self._types.get(name) if constant is None else constant.data_type
        if current not in (_FLOAT, self._short) or current == kind:
            return name
        other = f"{name}/{TensorProto.DataType.Name(kind).lower()}"
        if other not in self._made:
            self._made.add(other)
            if constant is None:
                self._cast(name, other, kind)
            else:
                values = numpy_helper.to_array(constant).astype(_NUMPY[kind])
                self._graph.initializer.append(numpy_helper.from_array(values, other))
        return other

    def _cast(self, name: str, other: str, kind: int) -> None:
        node = helper.make_node("Cast", [name], [other], name=f"{other}/node", to=kind)
        self._graph.node.append(node)
        info = self._graph.value_info.add()
        info.CopyFrom(self._infos[name])
        info.name, info.type.tensor_type.elem_type = other, kind


def overflow_nodes(model: onnx.ModelProto, images: Pictures) -> set[str]:
    """Return the nodes, by first output, that read or make numbers too large for fp16.

    Real images, uint8 [images size size 3], are run through the graph to see its tensors.
    """
    large = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == _FLOAT and _is_large(numpy_helper.to_array(tensor))
    }
    for begin in range(0, len(images), _BATCH):
        large |= _large_tensors(model, images[begin : begin + _BATCH])
    return {
        node.output[0]
        for node in model.graph.node
        if large.intersection([*node.input, *node.output])
    }


def _large_tensors(model: onnx.ModelProto, images: Pictures) -> set[str]:
    """Return the float tensors that are large for some image: each is made an output for this."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {info.name for info in exposed.graph.output}
    infos = types_of(model)
    names = [n for n, i in infos.items() if i.type.tensor_type.elem_type == _FLOAT]
    exposed.graph.output.extend(infos[name] for name in names if name not in outputs)
    session = start_trusted(exposed.SerializeToString(), [CPU])
    tensors = session.run(names, {"images": images})
    return {name for name, values in zip(names, tensors, strict=True) if _is_large(values)}


def _is_large(values: np.ndarray) -> bool:
    return bool(values.size and np.abs(values).max() > _LARGEST)
