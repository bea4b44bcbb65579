"""The portable flavour: operators of opset 20 only, for TensorRT, WebGPU and OpenVINO."""

import numpy as np

from export.graph import BATCH, Graph, Shape
from export.vit.operators import write_first_row, write_norm
from export.vit.tower import Activation, Block, Linear, Norm


class Portable:
    """Append attention as two products and a softmax, without any Shape operator."""

    def attend(
        self,
        graph: Graph,
        rows: str,
        block: Block,
        *,
        name: str,
        heads: int,
        length: int,
        first_only: bool,
    ) -> str:
        """Append softmax(q k' / sqrt(d)) v; the scale is folded into the queries' weights."""
        width = len(block.norm_1.scale)
        each = width // heads
        asking, asked = rows, length
        if first_only:
            asking, asked = write_first_row(graph, rows, width, name=f"{name}/first"), 1
        parts = zip("qkv", (asking, rows, rows), (asked, length, length), strict=True)
        order = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        found = {}
        for index, (part, source, count) in enumerate(parts):
            linear = _part(block.packed, index, each**-0.5 if part == "q" else 1.0)
            found[part] = _heads(
                graph, source, linear, (count, heads, each), order[part], name=f"{name}/{part}"
            )
        scores = graph.add(
            "MatMul",
            [found["q"], found["k"]],
            (BATCH, heads, asked, length),
            name=f"{name}/scores",
        )
        weights = graph.add(
            "Softmax", [scores], (BATCH, heads, asked, length), name=f"{name}/weights", axis=-1
        )
        read = graph.add(
            "MatMul", [weights, found["v"]], (BATCH, heads, asked, each), name=f"{name}/read"
        )
        read = graph.add(
            "Transpose",
            [read],
            (BATCH, asked, heads, each),
            name=f"{name}/turned",
            perm=[0, 2, 1, 3],
        )
        return graph.add(
            "Reshape",
            [read, graph.integers(0, asked, width)],
            (BATCH, asked, width),
            name=f"{name}/joined",
        )

    def add_and_norm(
        self,
        graph: Graph,
        rows: str,
        change: str,
        bias: str,
        norm: Norm,
        shape: Shape,
        *,
        name: str,
        keep_sum: bool,  # noqa: ARG002 - the sum is there anyway
    ) -> tuple[str, str]:
        """Append two additions and a LayerNorm."""
        change = graph.add("Add", [change, bias], shape, name=f"{name}/change")
        total = graph.add("Add", [rows, change], shape, name=f"{name}/sum")
        return write_norm(graph, total, norm, shape, name=name), total

    def activate(
        self, graph: Graph, rows: str, bias: str, activation: Activation, shape: Shape, *, name: str
    ) -> str:
        """Append Gelu, or x * sigmoid(1.702 x)."""
        rows = graph.add("Add", [rows, bias], shape, name=f"{name}/biased")
        if activation != "quick_gelu":
            form = "tanh" if activation == "gelu_tanh" else "none"
            return graph.add("Gelu", [rows], shape, name=name, approximate=form)
        slope = graph.constant(f"{name}/slope", 1.702)
        steep = graph.add("Mul", [rows, slope], shape, name=f"{name}/steep")
        gate = graph.add("Sigmoid", [steep], shape, name=f"{name}/gate")
        return graph.add("Mul", [rows, gate], shape, name=name)


def _part(packed: Linear, index: int, factor: float) -> Linear:
    width = len(packed.weight)
    chosen = slice(index * width, (index + 1) * width)
    scale = np.float32(factor)
    return Linear(weight=packed.weight[:, chosen] * scale, bias=packed.bias[chosen] * scale)


def _heads(
    graph: Graph,
    rows: str,
    linear: Linear,
    sizes: tuple[int, int, int],
    order: list[int],
    *,
    name: str,
) -> str:
    """Append x W + b, split into heads and turned as ``order`` says."""
    count, heads, each = sizes
    flat = (BATCH, count, heads * each)
    rows = graph.add(
        "MatMul", [rows, graph.constant(f"{name}/weight", linear.weight)], flat, name=f"{name}/raw"
    )
    rows = graph.add(
        "Add", [rows, graph.constant(f"{name}/bias", linear.bias)], flat, name=f"{name}/biased"
    )
    split = (BATCH, count, heads, each)
    rows = graph.add(
        "Reshape", [rows, graph.integers(0, count, heads, each)], split, name=f"{name}/split"
    )
    turned = tuple(split[axis] for axis in order)
    return graph.add("Transpose", [rows], turned, name=name, perm=order)
