"""The two flavours of a graph: they differ in attention, residual sums and activations.

``ort`` has ONNX Runtime's fused operators, which its CPU and CUDA providers both have. Its own
optimiser finds none of these attentions in an exported graph, so they are written as such.
``portable`` has operators of opset 20 only, for TensorRT, WebGPU and OpenVINO.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from export.graph.builder import BATCH, CONTRIB, Graph, Shape
from export.graph.read_tower import Activation, Block, Linear, Norm
from export.precision import Flavour


class PromptRows(NamedTuple):
    """Visual prompts that one block attends to and that query nothing."""

    name: str  # [batch length 2*width]: keys beside values, without their biases
    length: int


@dataclass(frozen=True, kw_only=True)
class Attention:
    """An attention up to its output projection.

    Attributes
    ----------
    name
        Of its result, and the prefix of all its tensors.
    block
        Whose projections are used.
    heads
        How many.
    first_only
        Only the first row queries, so that the result is [batch 1 width].
    prompts
        Rows that are attended to beside the block's own.
    """

    name: str
    block: Block
    heads: int
    first_only: bool = False
    prompts: PromptRows | None = None

    @property
    def head_width(self) -> int:
        """Return the numbers of a query, a key or a value."""
        return len(self.block.packed.weight) // self.heads

    def queries(self, graph: Graph, rows: str) -> str:
        """Return the rows that query: all of [batch length width], or the first."""
        return first_row(graph, rows, name=f"{self.name}/first") if self.first_only else rows


class Operators(Protocol):
    """Append what differs between runtimes to a graph."""

    def attend(self, rows: str, attention: Attention) -> str:
        """Append an attention over rows [batch length width]."""
        ...

    def add_and_norm(
        self, rows: str, change: str, bias: str, norm: Norm, *, name: str, keep_sum: bool
    ) -> tuple[str, str]:
        """Append rows + change + bias and its LayerNorm; return (normed, sum)."""
        ...

    def activate(self, rows: str, bias: str, activation: Activation, *, name: str) -> str:
        """Append the activation of rows + bias."""
        ...


class FusedOperators:
    """Append Attention, MultiHeadAttention, SkipLayerNormalization, BiasGelu and QuickGelu."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def attend(self, rows: str, attention: Attention) -> str:
        """Append one fused attention over rows [batch length width]."""
        bias = self._graph.constant(f"{attention.name}/bias", attention.block.packed.bias)
        if attention.first_only or attention.prompts:
            inputs = [*self._projected(rows, attention), bias]
            operator, shape = "MultiHeadAttention", self._graph.shape(inputs[0])
        else:
            weight = self._graph.constant(f"{attention.name}/weight", attention.block.packed.weight)
            inputs = [rows, weight, bias]
            operator, shape = "Attention", self._graph.shape(rows)
        return self._graph.add(
            operator,
            inputs,
            shape,
            name=attention.name,
            domain=CONTRIB,
            num_heads=attention.heads,
            scale=attention.head_width**-0.5,
        )

    def _projected(self, rows: str, attention: Attention) -> list[str]:
        """Append queries, keys and values [batch rows width], without their biases."""
        graph, name, weight = self._graph, attention.name, attention.block.packed.weight
        width = len(weight)
        query_weight = graph.constant(f"{name}/query_weight", weight[:, :width])
        others_weight = graph.constant(f"{name}/others_weight", weight[:, width:])
        queries = attention.queries(graph, rows)
        query = graph.add(
            "MatMul", [queries, query_weight], graph.shape(queries), name=f"{name}/query"
        )
        length = int(graph.shape(rows)[1])
        both = (BATCH, length, 2 * width)
        others = graph.add("MatMul", [rows, others_weight], both, name=f"{name}/others")
        if attention.prompts:
            length += attention.prompts.length
            both = (BATCH, length, 2 * width)
            others = graph.add(
                "Concat", [others, attention.prompts.name], both, name=f"{name}/all", axis=1
            )
        part = (BATCH, length, width)
        outputs: dict[str, Shape] = {f"{name}/key": part, f"{name}/value": part}
        parts = graph.add_many("Split", [others, graph.integers(width, width)], outputs, axis=-1)
        return [query, *parts]

    def add_and_norm(
        self, rows: str, change: str, bias: str, norm: Norm, *, name: str, keep_sum: bool
    ) -> tuple[str, str]:
        """Append SkipLayerNormalization; its fourth output is the sum."""
        shape = self._graph.shape(change)
        outputs: dict[str, Shape] = {name: shape}
        if keep_sum:
            outputs[f"{name}/sum"] = shape
        names = self._graph.add_many(
            "SkipLayerNormalization",
            [change, rows, *_norm_constants(self._graph, norm, name=name), bias],
            outputs,
            skipped=2 if keep_sum else 0,
            domain=CONTRIB,
            epsilon=norm.epsilon,
        )
        return names[0], names[-1]

    def activate(self, rows: str, bias: str, activation: Activation, *, name: str) -> str:
        """Append BiasGelu, FastGelu, or an addition and QuickGelu."""
        shape = self._graph.shape(rows)
        if activation != "quick_gelu":
            operator = "BiasGelu" if activation == "gelu" else "FastGelu"
            return self._graph.add(operator, [rows, bias], shape, name=name, domain=CONTRIB)
        rows = self._graph.add("Add", [rows, bias], shape, name=f"{name}/biased")
        return self._graph.add("QuickGelu", [rows], shape, name=name, domain=CONTRIB, alpha=1.702)


class PortableOperators:
    """Append attention as two products and a softmax, without any Shape operator."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def attend(self, rows: str, attention: Attention) -> str:
        """Append softmax(q k' / sqrt(d)) v; the scale is folded into the queries' weights."""
        name, packed = attention.name, attention.block.packed
        query = _part(packed, 0, attention.head_width**-0.5)
        key, value = _part(packed, 1), _part(packed, 2)
        raw_query = self._project(attention.queries(self._graph, rows), query, name=f"{name}/q")
        raw_key = self._project(rows, key, name=f"{name}/k")
        raw_value = self._project(rows, value, name=f"{name}/v")
        if attention.prompts:
            raw_key, raw_value = self._append(attention.prompts, raw_key, raw_value, name=name)
        heads = attention.heads
        return self._read(
            self._split(raw_query, query, heads, [0, 2, 1, 3], name=f"{name}/q"),
            self._split(raw_key, key, heads, [0, 2, 3, 1], name=f"{name}/k"),
            self._split(raw_value, value, heads, [0, 2, 1, 3], name=f"{name}/v"),
            name=name,
        )

    def _project(self, rows: str, linear: Linear, *, name: str) -> str:
        """Append x W [batch rows width]; the bias is added behind the prompts."""
        weight = self._graph.constant(f"{name}/weight", linear.weight)
        shape = (*self._graph.shape(rows)[:-1], len(linear.bias))
        return self._graph.add("MatMul", [rows, weight], shape, name=f"{name}/raw")

    def _append(self, prompts: PromptRows, key: str, value: str, *, name: str) -> list[str]:
        """Append the keys and values of prompts behind the block's own."""
        batch, length, width = self._graph.shape(key)
        part = (batch, prompts.length, width)
        parts = self._graph.add_many(
            "Split",
            [prompts.name, self._graph.integers(int(width), int(width))],
            {f"{name}/guests/k": part, f"{name}/guests/v": part},
            axis=-1,
        )
        shape = (batch, int(length) + prompts.length, width)
        return [
            self._graph.add("Concat", [rows, prompt], shape, name=f"{name}/{kind}/all", axis=1)
            for kind, rows, prompt in zip("kv", (key, value), parts, strict=True)
        ]

    def _split(self, rows: str, linear: Linear, heads: int, order: list[int], *, name: str) -> str:
        """Append the bias to x W, if any, split into heads and transposed by ``order``."""
        shape = self._graph.shape(rows)
        batch, count, width = shape
        if linear.bias.any():
            bias = self._graph.constant(f"{name}/bias", linear.bias)
            rows = self._graph.add("Add", [rows, bias], shape, name=f"{name}/biased")
        split = (batch, int(count), heads, int(width) // heads)
        sides = self._graph.integers(0, *split[1:])
        rows = self._graph.add("Reshape", [rows, sides], split, name=f"{name}/split")
        turned = tuple(split[axis] for axis in order)
        return self._graph.add("Transpose", [rows], turned, name=name, perm=order)

    def _read(self, query: str, key: str, value: str, *, name: str) -> str:
        """Append softmax(q k') v of all heads, joined again to [batch queries width]."""
        graph = self._graph
        _, heads, queries, each = graph.shape(query)
        table = (BATCH, heads, queries, graph.shape(key)[3])
        scores = graph.add("MatMul", [query, key], table, name=f"{name}/scores")
        weights = graph.add("Softmax", [scores], table, name=f"{name}/weights", axis=-1)
        read = graph.add(
            "MatMul", [weights, value], (BATCH, heads, queries, each), name=f"{name}/read"
        )
        turned = (BATCH, queries, heads, each)
        read = graph.add("Transpose", [read], turned, name=f"{name}/turned", perm=[0, 2, 1, 3])
        width = int(heads) * int(each)
        return graph.add(
            "Reshape",
            [read, graph.integers(0, int(queries), width)],
            (BATCH, queries, width),
            name=f"{name}/joined",
        )

    def add_and_norm(
        self,
        rows: str,
        change: str,
        bias: str,
        norm: Norm,
        *,
        name: str,
        keep_sum: bool,  # noqa: ARG002 - the sum is there anyway
    ) -> tuple[str, str]:
        """Append two additions and a LayerNorm."""
        shape = self._graph.shape(change)
        change = self._graph.add("Add", [change, bias], shape, name=f"{name}/change")
        total = self._graph.add("Add", [rows, change], shape, name=f"{name}/sum")
        return layer_norm(self._graph, total, norm, name=name), total

    def activate(self, rows: str, bias: str, activation: Activation, *, name: str) -> str:
        """Append Gelu, or x * sigmoid(1.702 x)."""
        graph, shape = self._graph, self._graph.shape(rows)
        rows = graph.add("Add", [rows, bias], shape, name=f"{name}/biased")
        if activation != "quick_gelu":
            form = "tanh" if activation == "gelu_tanh" else "none"
            return graph.add("Gelu", [rows], shape, name=name, approximate=form)
        slope = graph.constant(f"{name}/slope", 1.702)
        steep = graph.add("Mul", [rows, slope], shape, name=f"{name}/steep")
        gate = graph.add("Sigmoid", [steep], shape, name=f"{name}/gate")
        return graph.add("Mul", [rows, gate], shape, name=name)


FLAVOURS: dict[Flavour, type[FusedOperators] | type[PortableOperators]] = {
    "ort": FusedOperators,
    "portable": PortableOperators,
}


def layer_norm(graph: Graph, rows: str, norm: Norm, *, name: str) -> str:
    """Append a plain LayerNorm, which all flavours share."""
    scale, shift = _norm_constants(graph, norm, name=name)
    return graph.add(
        "LayerNormalization",
        [rows, scale, shift],
        graph.shape(rows),
        name=name,
        axis=-1,
        epsilon=norm.epsilon,
    )


def first_row(graph: Graph, rows: str, *, name: str) -> str:
    """Append the selection of the class token: [batch length width] to [batch 1 width]."""
    batch, _, width = graph.shape(rows)
    return graph.add(
        "Slice",
        [rows, graph.integers(0), graph.integers(1), graph.integers(1)],
        (batch, 1, width),
        name=name,
    )


def _norm_constants(graph: Graph, norm: Norm, *, name: str) -> tuple[str, str]:
    scale = graph.constant(f"{name}/scale", norm.scale)
    return scale, graph.constant(f"{name}/shift", norm.shift)


def _part(packed: Linear, index: int, factor: float = 1.0) -> Linear:
    """Return the projection of queries (0), keys (1) or values (2), scaled."""
    width = len(packed.weight)
    chosen = slice(index * width, (index + 1) * width)
    scale = np.float32(factor)
    return Linear(weight=packed.weight[:, chosen] * scale, bias=packed.bias[chosen] * scale)
