"""The ort flavour: ONNX Runtime's fused operators, which its CPU and CUDA providers both have.

ONNX Runtime's own optimiser finds none of these attentions in an exported graph (onnx.md), so they
are written as such.
"""

from export.graph.builder import BATCH, CONTRIB, Graph, Shape
from export.graph.operators import write_first_row, write_norm_constants
from export.graph.read_tower import Activation, Block, Norm
from export.graph.visual_prompts import Attended


class Ort:
    """Append Attention, MultiHeadAttention, SkipLayerNormalization, BiasGelu and QuickGelu."""

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
        """Append one fused attention; without a cut or guests it has all projections inside."""
        width = len(block.norm_1.scale)
        scale = (width // heads) ** -0.5
        bias = graph.constant(f"{name}/bias", block.packed.bias)
        if not first_only and guests is None:
            weight = graph.constant(f"{name}/weight", block.packed.weight)
            return graph.add(
                "Attention",
                [rows, weight, bias],
                (BATCH, length, width),
                name=name,
                domain=CONTRIB,
                num_heads=heads,
                scale=scale,
            )
        query_weight = graph.constant(f"{name}/query_weight", block.packed.weight[:, :width])
        others_weight = graph.constant(f"{name}/others_weight", block.packed.weight[:, width:])
        asking, asked = rows, length
        if first_only:
            asking, asked = write_first_row(graph, rows, width, name=f"{name}/first"), 1
        query = graph.add(
            "MatMul", [asking, query_weight], (BATCH, asked, width), name=f"{name}/query"
        )
        others = graph.add(
            "MatMul", [rows, others_weight], (BATCH, length, 2 * width), name=f"{name}/others"
        )
        if guests is not None:
            length += guests.length
            both = (BATCH, length, 2 * width)
            others = graph.add("Concat", [others, guests.name], both, name=f"{name}/all", axis=1)
        part = (BATCH, length, width)
        key, value = graph.add_many(
            "Split",
            [others, graph.integers(width, width)],
            {f"{name}/key": part, f"{name}/value": part},
            axis=-1,
        )
        return graph.add(
            "MultiHeadAttention",
            [query, key, value, bias],
            (BATCH, asked, width),
            name=name,
            domain=CONTRIB,
            num_heads=heads,
            scale=scale,
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
        keep_sum: bool,
    ) -> tuple[str, str]:
        """Append SkipLayerNormalization; its fourth output is the sum."""
        outputs: dict[str, Shape] = {name: shape}
        if keep_sum:
            outputs[f"{name}/sum"] = shape
        found = graph.add_many(
            "SkipLayerNormalization",
            [change, rows, *write_norm_constants(graph, norm, name=name), bias],
            outputs,
            skipped=2 if keep_sum else 0,
            domain=CONTRIB,
            epsilon=norm.epsilon,
        )
        return found[0], found[-1]

    def activate(
        self, graph: Graph, rows: str, bias: str, activation: Activation, shape: Shape, *, name: str
    ) -> str:
        """Append BiasGelu, or an addition and QuickGelu or FastGelu."""
        if activation == "gelu":
            return graph.add("BiasGelu", [rows, bias], shape, name=name, domain=CONTRIB)
        if activation == "gelu_tanh":
            return graph.add("FastGelu", [rows, bias], shape, name=name, domain=CONTRIB)
        rows = graph.add("Add", [rows, bias], shape, name=f"{name}/biased")
        return graph.add("QuickGelu", [rows], shape, name=name, domain=CONTRIB, alpha=1.702)
