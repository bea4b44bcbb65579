"""Graphs that are valid, small and hostile: each is a classifier with one more thing inside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_MANY = 60_000  # of two such columns a table of 14 GB is made
_HUGE = 1 << 40


class Hostile:
    """Add to a classifier; the result of what is added goes into its logits."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        for node in self.graph.node:
            for place, name in enumerate(node.output):
                if name == "logits":
                    node.output[place] = "answer"

    def constant(self, name: str, values: Any, kind: Any = np.int64) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def node(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        names = list(outputs) or [f"evil_{len(self.graph.node)}"]
        self.graph.node.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]

    def finish(self, name: str, axes: int) -> onnx.ModelProto:
        """Add the sum of a tensor to the logits."""
        total = self.node("ReduceSum", [name, self.constant("axes", list(range(axes)))], keepdims=0)
        self.node("Add", ["answer", total], "logits")
        return self.model


def loop(evil: Hostile) -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["before", "zero"], ["after"]),
        ],
        "body",
        [_value("turn", TensorProto.INT64), _value("go_on", TensorProto.BOOL), _value("before")],
        [_value("goes_on", TensorProto.BOOL), _value("after")],
    )
    evil.constant("turns", 2**62)
    evil.constant("true", True, np.bool_)
    evil.constant("zero", 0, np.float32)
    evil.node("Loop", ["turns", "true", "answer"], "logits", body=body)
    return evil.model


def branch(evil: Hostile) -> onnx.ModelProto:
    same = helper.make_graph(
        [helper.make_node("Identity", ["answer"], ["o"])], "same", [], [_value("o")]
    )
    evil.constant("true", True, np.bool_)
    evil.node("If", ["true"], "logits", then_branch=same, else_branch=same)
    return evil.model


def scan(evil: Hostile) -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["row"], ["out"])], "body", [_value("row")], [_value("out")]
    )
    evil.node("Scan", ["answer"], "logits", body=body, num_scan_inputs=1)
    return evil.model


def function(evil: Hostile) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 20)]
    body = [helper.make_node("Identity", ["a"], ["b"])]
    evil.model.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, opsets))
    evil.model.opset_import.append(helper.make_opsetid("local", 1))
    evil.node("F", ["answer"], "logits", domain="local")
    return evil.model


def zeros(evil: Hostile) -> onnx.ModelProto:
    return evil.finish(evil.node("ConstantOfShape", [evil.constant("big", [_HUGE])]), 1)


def noise(evil: Hostile) -> onnx.ModelProto:
    return evil.finish(evil.node("RandomNormal", [], shape=[_HUGE]), 1)


def counted(evil: Hostile) -> onnx.ModelProto:
    ends = [evil.constant(name, value) for name, value in (("a", 0), ("b", _HUGE), ("c", 1))]
    return evil.finish(evil.node("Range", ends), 1)


def tiled(evil: Hostile) -> onnx.ModelProto:
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Tile", [one, evil.constant("big", [_HUGE])]), 1)


def expanded(evil: Hostile) -> onnx.ModelProto:
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Expand", [one, evil.constant("big", [_HUGE])]), 1)


def expanded_by_the_batch(evil: Hostile) -> onnx.ModelProto:
    """Small for a batch of one, where the exponent is one."""
    batch = evil.node("Shape", ["images"], end=1)
    for _ in range(3):
        batch = evil.node("Mul", [batch, batch])
    batch = evil.node("Concat", [batch, batch, batch], axis=0)
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Expand", [one, batch]), 3)


def expanded_by_an_image(evil: Hostile) -> onnx.ModelProto:
    """As large as a pixel says: known only when it is computed."""
    pixel = evil.node("Cast", ["images"], to=TensorProto.INT64)
    places = [evil.constant(f"int_{n}", [n] * 4) for n in (0, 1)]
    pixel = evil.node("Slice", [pixel, *places])
    pixel = evil.node("Reshape", [pixel, evil.constant("flat", [1])])
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Expand", [one, pixel]), 1)


def resized(evil: Hostile) -> onnx.ModelProto:
    rows = evil.constant("rows", np.ones((1, 1, 2, 2)), np.float32)
    sizes = evil.constant("sizes", [1, 1, 1 << 20, 1 << 20])
    return evil.finish(evil.node("Resize", [rows, "", "", sizes]), 4)


def padded(evil: Hostile) -> onnx.ModelProto:
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Pad", [one, evil.constant("pads", [0, _HUGE])]), 1)


def doubled(evil: Hostile) -> onnx.ModelProto:
    rows = evil.constant("rows", np.ones(1024), np.float32)
    for _ in range(30):
        rows = evil.node("Concat", [rows, rows], axis=0)
    return evil.finish(rows, 1)


def _columns(evil: Hostile) -> tuple[str, str]:
    column = evil.constant("column", np.ones((_MANY, 1)), np.float32)
    return column, evil.constant("row", np.ones((1, _MANY)), np.float32)


def side_by_side(evil: Hostile) -> onnx.ModelProto:
    return evil.finish(evil.node("Add", [*_columns(evil)]), 2)


def outer_product(evil: Hostile) -> onnx.ModelProto:
    return evil.finish(evil.node("MatMul", [*_columns(evil)]), 2)


def compared(evil: Hostile) -> onnx.ModelProto:
    table = evil.node("Equal", [*_columns(evil)])
    return evil.finish(evil.node("Cast", [table], to=TensorProto.FLOAT), 2)


def gathered(evil: Hostile) -> onnx.ModelProto:
    rows = evil.constant("rows", np.ones((1, _MANY)), np.float32)
    places = evil.constant("places", np.zeros(_MANY), np.int64)
    return evil.finish(evil.node("Gather", [rows, places], axis=0), 2)


def convolved(evil: Hostile) -> onnx.ModelProto:
    rows = evil.constant("rows", np.ones((1, 1, 1, 1)), np.float32)
    weight = evil.constant("weight", np.ones((1, 1, 1, 1)), np.float32)
    return evil.finish(evil.node("Conv", [rows, weight], pads=[1 << 20] * 4), 4)


def images_times_images(evil: Hostile) -> onnx.ModelProto:
    """A table of all pixels of all images."""
    flat = evil.node("Cast", ["images"], to=TensorProto.FLOAT)
    column = evil.node("Reshape", [flat, evil.constant("column", [-1, 1])])
    row = evil.node("Reshape", [flat, evil.constant("row", [1, -1])])
    return evil.finish(evil.node("MatMul", [column, row]), 2)


def kept_alive(evil: Hostile) -> onnx.ModelProto:
    """Small tensors, but all of them at once."""
    rows = evil.constant("rows", np.ones((1, 1 << 20)), np.float32)
    parts = [evil.node("Add", [rows, rows]) for _ in range(200)]
    return evil.finish(evil.node("Concat", parts, axis=0), 2)


def long_work(evil: Hostile) -> onnx.ModelProto:
    """Little memory, but a month of products."""
    rows = evil.constant("rows", np.ones((1024, 1024)), np.float32)
    answer = evil.node("ReduceSum", ["answer", evil.constant("both", [0, 1])], keepdims=1)
    made = evil.node("Add", [rows, answer])
    for _ in range(9_000):
        made = evil.node("MatMul", [made, rows])
    return evil.finish(made, 2)


def many_operators(evil: Hostile) -> onnx.ModelProto:
    made = "answer"
    for _ in range(20_000):
        made = evil.node("Relu", [made])
    evil.node("Add", ["answer", made], "logits")
    return evil.model


def lying_declaration(evil: Hostile) -> onnx.ModelProto:
    """ONNX Runtime would believe the declared size, and compute a Shape of it while opening."""
    evil.node("GatherND", ["answer", evil.constant("place", [[0]])], "lie")
    evil.graph.value_info.append(_value("lie", shape=[1, _HUGE]))
    one = evil.constant("one", [1], np.float32)
    return evil.finish(evil.node("Expand", [one, evil.node("Shape", ["lie"])]), 2)


def counted_past_64_bits(evil: Hostile) -> onnx.ModelProto:
    ends = [evil.constant(name, n) for name, n in (("a", -(2**63)), ("b", 2**63 - 1), ("c", 1))]
    return evil.finish(evil.node("Range", ends), 1)


def long_and_empty(evil: Hostile) -> onnx.ModelProto:
    """Without an element, and with a side that is no number of 64 bits once it is joined."""
    evil.graph.initializer.append(helper.make_tensor("none", TensorProto.FLOAT, [0, 1 << 39], []))
    return evil.finish(evil.node("Concat", ["none"] * 8, axis=1), 2)


def followed(evil: Hostile) -> onnx.ModelProto:
    """Numbers that shapes could be made of, if anybody kept so many."""
    made, one = evil.constant("many", np.arange(4096) + 10**6), evil.constant("one", [1])
    for _ in range(10_000):
        made = evil.node("Add", [made, one])
    return evil.finish(evil.node("Expand", [one, made]), 1)


def cut_up(evil: Hostile) -> onnx.ModelProto:
    many, ones = evil.constant("many", np.arange(4096)), evil.constant("ones", [1] * 4096)
    for number in range(10_000):
        evil.node("Split", [many, ones], f"part_{number}", axis=0)
    return evil.finish("part_0", 1)


def one_batch_only(evil: Hostile) -> onnx.ModelProto:
    """A declared batch is computed with while the graph is opened."""
    evil.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 30
    evil.node("Add", ["answer", "answer"], "logits")
    return evil.model


def dense_of_a_sparse(evil: Hostile) -> onnx.ModelProto:
    sparse = onnx.SparseTensorProto(dims=[_HUGE])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    evil.graph.sparse_initializer.append(sparse)
    return evil.finish(evil.node("Relu", ["sparse"]), 1)


def texts(evil: Hostile) -> onnx.ModelProto:
    evil.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"x" * 99]))
    evil.node("Add", ["answer", "answer"], "logits")
    return evil.model


def constant_inside(evil: Hostile) -> onnx.ModelProto:
    big = numpy_helper.from_array(np.array([_HUGE]), "v")
    return evil.finish(evil.node("Expand", [evil.constant("one", [1], np.float32),
                                            evil.node("Constant", [], value=big)]), 1)  # fmt: skip


def _value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


BOMBS: dict[str, Callable[[Hostile], onnx.ModelProto]] = {
    bomb.__name__: bomb
    for bomb in (
        loop, branch, scan, function, zeros, noise, counted, tiled, expanded, expanded_by_an_image,
        resized, padded, doubled, side_by_side, outer_product, compared, gathered, convolved,
        kept_alive, long_work, many_operators, lying_declaration, one_batch_only,
        dense_of_a_sparse, texts, constant_inside, counted_past_64_bits, long_and_empty,
        followed, cut_up,
    )
}  # fmt: skip
LATER: dict[str, Callable[[Hostile], onnx.ModelProto]] = {  # not for one image, but for many
    bomb.__name__: bomb for bomb in (expanded_by_the_batch, images_times_images)
}


def hostile_graph(name: str, model: onnx.ModelProto) -> bytes:
    """Return a file of `BOMBS` or `LATER` made of a classifier."""
    made: bytes = (BOMBS | LATER)[name](Hostile(model)).SerializeToString()
    return made
