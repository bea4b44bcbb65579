"""Collect the nodes, constants and tensor types of one ONNX graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH = "batch"
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
OPSET = 20  # the first with Gelu
IR_VERSION = 10
Shape = tuple[int | str, ...]


class Graph:
    """Append operators one by one; every tensor's type is written down as it is made.

    Types matter: without ``value_info`` the quantiser raises and the fp16 converter writes an
    invalid graph, and contrib operators are opaque to shape inference.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._types: dict[str, onnx.ValueInfoProto] = {}
        self._domains = {""}

    def adopt(self, model: onnx.ModelProto, types: dict[str, Shape]) -> None:
        """Take over the nodes of a model without functions; ``types`` are its outputs' shapes."""
        graph = model.graph
        for node in graph.node:
            self.keep(node)
        self._constants += graph.initializer
        self._types |= {info.name: info for info in graph.value_info}
        for name, shape in types.items():
            self._types[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def keep(self, node: onnx.NodeProto) -> None:
        """Append a node of another graph, whose types were taken over."""
        self._nodes.append(node)
        self._domains.add(node.domain)

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor that some node makes."""
        dims = self._types[name].type.tensor_type.shape.dim
        return tuple(dim.dim_param or dim.dim_value for dim in dims)

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """Store float32 values under a name and return it."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        """Store an int64 list once, however often it is asked for."""
        name = "int_" + "_".join(str(v) for v in values)
        if all(tensor.name != name for tensor in self._constants):
            self._constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        shape: Shape,
        *,
        name: str,
        dtype: int = TensorProto.FLOAT,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Append an operator of one output and return the output's name, which is ``name``."""
        self.add_many(operator, inputs, {name: shape}, dtype=dtype, domain=domain, **attributes)
        return name

    def add_many(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: dict[str, Shape],
        *,
        skipped: int = 0,
        dtype: int = TensorProto.FLOAT,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append an operator of several outputs; ``skipped`` unused ones follow the first."""
        names = list(outputs)
        places = [names[0], *[""] * skipped, *names[1:]]
        self._nodes.append(
            helper.make_node(
                operator, list(inputs), places, name=f"{names[0]}/node", domain=domain, **attributes
            )
        )
        self._domains.add(domain)
        for name, shape in outputs.items():
            self._types[name] = helper.make_tensor_value_info(name, dtype, shape)
        return names

    def model(self, images: Shape, outputs: Sequence[str]) -> onnx.ModelProto:
        """Return the model with the uint8 input ``images`` and the named outputs."""
        return self.model_of({"images": (TensorProto.UINT8, images)}, outputs)

    def model_of(
        self, inputs: dict[str, tuple[int, Shape]], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """Return the model with inputs of some (dtype, shape) and the named outputs.

        An input that is a constant as well has that constant's values unless others are given.
        """
        entries = [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()]
        exits = [self._types.pop(name) for name in outputs]
        graph = helper.make_graph(
            self._nodes,
            "fedprompt",
            entries,
            exits,
            self._constants,
            value_info=list(self._types.values()),
        )
        versions = {"": OPSET, CONTRIB: 1}
        opsets = [helper.make_opsetid(d, versions[d]) for d in sorted(self._domains)]
        return helper.make_model(
            graph, opset_imports=opsets, producer_name="fedprompt", ir_version=IR_VERSION
        )
