"""The portable flavour: operators of opset 20 only, for TensorRT, WebGPU and OpenVINO."""

import numpy as np

from export.graph.builder import BATCH, Graph, Shape
from export.graph.operators import write_first_row, write_norm
from export.graph.read_tower import Activation, Block, Linear, Norm
from export.graph.visual_prompts import Attended


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
        guests: Attended | None,
    ) -> str:
        """Append softmax(q k' / sqrt(d)) v; the scale is folded into the queries' weights."""
        width = len(block.norm_1.scale)
        each = width // heads
        asking, asked = rows, length
        if first_only:
            asking, asked = write_first_row(graph, rows, width, name=f"{name}/first"), 1
        query = _part(block.packed, 0, each**-0.5)
        key, value = (_part(block.packed, index) for index in (1, 2))
        raw_query = _project(graph, asking, query, asked, name=f"{name}/q")
        raw_key, raw_value = (
            _project(graph, rows, linear, length, name=f"{name}/{part}")
            for part, linear in (("k", key), ("v", value))
        )
        if guests is not None:
            length += guests.length
            raw_key, raw_value = _invite(
                graph, raw_key, raw_value, guests, (BATCH, length, width), name=name
            )
        own, all_ = (asked, heads, each), (length, heads, each)
        found = {
            "q": _heads(graph, raw_query, query, own, [0, 2, 1, 3], name=f"{name}/q"),
            "k": _heads(graph, raw_key, key, all_, [0, 2, 3, 1], name=f"{name}/k"),
            "v": _heads(graph, raw_value, value, all_, [0, 2, 1, 3], name=f"{name}/v"),
        }
        return _read(graph, found, (asked, length, heads, each), name=name)

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


def _part(packed: Linear, index: int, factor: float = 1.0) -> Linear:
    width = len(packed.weight)
    chosen = slice(index * width, (index + 1) * width)
    scale = np.float32(factor)
    return Linear(weight=packed.weight[:, chosen] * scale, bias=packed.bias[chosen] * scale)


def _project(graph: Graph, rows: str, linear: Linear, count: int, *, name: str) -> str:
    """Append x W [batch count width]; the bias waits for the guests."""
    weight = graph.constant(f"{name}/weight", linear.weight)
    return graph.add("MatMul", [rows, weight], (BATCH, count, len(linear.bias)), name=f"{name}/raw")


def _invite(
    graph: Graph, key: str, value: str, guests: Attended, shape: Shape, *, name: str
) -> tuple[str, str]:
    """Append the guests' keys and values behind the tower's own."""
    width = shape[-1]
    part = (BATCH, guests.length, width)
    parts = graph.add_many(
        "Split",
        [guests.name, graph.integers(int(width), int(width))],
        {f"{name}/guests/k": part, f"{name}/guests/v": part},
        axis=-1,
    )
    own = (("k", key), ("v", value))
    key, value = (
        graph.add("Concat", [rows, guest], shape, name=f"{name}/{kind}/all", axis=1)
        for (kind, rows), guest in zip(own, parts, strict=True)
    )
    return key, value


def _read(
    graph: Graph, found: dict[str, str], sizes: tuple[int, int, int, int], *, name: str
) -> str:
    """Append softmax(q k') v of all heads, joined again to [batch asked width]."""
    asked, length, heads, each = sizes
    table, own = (BATCH, heads, asked, length), (BATCH, heads, asked, each)
    scores = graph.add("MatMul", [found["q"], found["k"]], table, name=f"{name}/scores")
    weights = graph.add("Softmax", [scores], table, name=f"{name}/weights", axis=-1)
    read = graph.add("MatMul", [weights, found["v"]], own, name=f"{name}/read")
    turned = (BATCH, asked, heads, each)
    read = graph.add("Transpose", [read], turned, name=f"{name}/turned", perm=[0, 2, 1, 3])
    joined, width = f"{name}/joined", heads * each
    return graph.add(
        "Reshape", [read, graph.integers(0, asked, width)], (BATCH, asked, width), name=joined
    )


def _heads(
    graph: Graph,
    rows: str,
    linear: Linear,
    sizes: tuple[int, int, int],
    order: list[int],
    *,
    name: str,
) -> str:
    """Append the bias to x W, if any, split into heads and turned as ``order`` says."""
    count, heads, each = sizes
    if linear.bias.any():
        bias = graph.constant(f"{name}/bias", linear.bias)
        rows = graph.add("Add", [rows, bias], (BATCH, count, heads * each), name=f"{name}/biased")
    split = (BATCH, count, heads, each)
    rows = graph.add(
        "Reshape", [rows, graph.integers(0, count, heads, each)], split, name=f"{name}/split"
    )
    turned = tuple(split[axis] for axis in order)
    return graph.add("Transpose", [rows], turned, name=name, perm=order)
