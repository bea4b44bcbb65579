"""What a flavour must offer: the three places where a graph differs between runtimes."""

from typing import Protocol, runtime_checkable

from export.graph.builder import BATCH, Graph, Shape
from export.graph.read_tower import Activation, Block, Norm
from export.graph.visual_prompts import Attended


@runtime_checkable
class Operators(Protocol):
    """Append attention, residual sums and activations with the operators of one flavour."""

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
        """Append attention up to its output projection.

        ``rows`` is [batch length width]. With ``first_only`` only the first row asks, and the
        result is [batch 1 width]. Guests are attended to, and ask nothing.
        """
        ...

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
        """Append rows + change + bias and its LayerNorm; return (normed, sum)."""
        ...

    def activate(
        self, graph: Graph, rows: str, bias: str, activation: Activation, shape: Shape, *, name: str
    ) -> str:
        """Append the activation of rows + bias."""
        ...


def write_norm(graph: Graph, rows: str, norm: Norm, shape: Shape, *, name: str) -> str:
    """Append a plain LayerNorm; all flavours share it."""
    scale, shift = write_norm_constants(graph, norm, name=name)
    return graph.add(
        "LayerNormalization", [rows, scale, shift], shape, name=name, axis=-1, epsilon=norm.epsilon
    )


def write_norm_constants(graph: Graph, norm: Norm, *, name: str) -> tuple[str, str]:
    """Store scale and shift of a LayerNorm."""
    scale = graph.constant(f"{name}/scale", norm.scale)
    return scale, graph.constant(f"{name}/shift", norm.shift)


def write_first_row(graph: Graph, rows: str, width: int, *, name: str) -> str:
    """Append the selection of the class token: [batch length width] to [batch 1 width]."""
    return graph.add(
        "Slice",
        [rows, graph.integers(0), graph.integers(1), graph.integers(1)],
        (BATCH, 1, width),
        name=name,
    )
