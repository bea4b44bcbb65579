"""Collect the nodes, constants and tensor types of one ONNX graph, and check the result."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.runtime.safety.safe_graph import SafeGraph
from fedprompt.errors import GraphError

BATCH = "batch"
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
OPSET = 20  # the first with Gelu
IR_VERSION = 10
_SMALLEST = 1e-12  # length that rows are divided by, as in torch's normalize
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
        return shape_of(self._types[name])

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """Store float32 values under a name and return it."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        """Store an int64 list once, however often it is used, and return its name."""
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

    def product(self, rows: str, weight: npt.NDArray[np.float32], *, name: str) -> str:
        """Append rows [... in] times a stored weight [in out]."""
        stored = self.constant(f"{name}/weight", weight)
        shape = (*self.shape(rows)[:-1], weight.shape[1])
        return self.add("MatMul", [rows, stored], shape, name=name)

    def l2_normalise(self, rows: str, *, name: str) -> str:
        """Append the division of rows [... width] by their lengths: x / max(|x|, 1e-12)."""
        shape = self.shape(rows)
        single = (*shape[:-1], 1)
        length = self.add(
            "ReduceL2", [rows, self.integers(-1)], single, name=f"{name}/length", keepdims=1
        )
        floor = self.constant(f"{name}/smallest", _SMALLEST)
        divisor = self.add("Clip", [length, floor], single, name=f"{name}/divisor")
        return self.add("Div", [rows, divisor], shape, name=name)

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


def shape_of(info: onnx.ValueInfoProto) -> Shape:
    """Return the shape of a tensor: a size, or the name of one, for each side."""
    return tuple(dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim)


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


def serialise(model: onnx.ModelProto, where: str) -> bytes:
    """Return the bytes of a finished model, every part of it checked: see `parse_model`."""
    data: bytes = model.SerializeToString()
    parse_model(data, where)
    return data
