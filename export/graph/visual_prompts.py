"""Visual prompts in the graph: rows beside the tower's own.

What a prompt P_i becomes behind its block i is thrown away where block i+1 overwrites it or no
block follows, so all that is ever read of it is

    K_i = LN_1(P_i) W_k,    V_i = LN_1(P_i) W_v        (biases are added with the own rows')

and these are constants. The prompt of the last prompted block stays: from there on it is rows among
rows. P_0 goes through ``ln_pre`` as the patches do.

A constant has no batch. One zero [batch 1 1], made of the images, gives it one by an addition: no
Shape, no Expand, and no row of zeros in the file for each row of the tower, as Pad would need.
"""

import numpy as np

from export.fold.constants import VisualPrompts
from export.graph.builder import BATCH, Graph
from export.graph.operators import PromptRows
from export.graph.read_tower import Array, Block, Tower
from fedprompt.errors import GraphError


class PromptWriter:
    """Append visual prompts to a graph where they enter the tower.

    Parameters
    ----------
    graph, tower
        Where to write, and the tower they enter.
    prompts
        None = nothing is written.
    rows
        The embedded patches [batch 1+patches width].

    Raises
    ------
    GraphError
        The prompts do not fit the tower.
    """

    def __init__(
        self, graph: Graph, tower: Tower, prompts: VisualPrompts | None, rows: str
    ) -> None:
        self._graph, self._tower = graph, tower
        self._entering: dict[int, Array] = {}
        self._first_kept = len(tower.blocks)  # the block from which on prompts are rows
        if prompts is None:
            return
        self._entering = entering(prompts, tower)
        if (last := max(self._entering)) + 1 < len(tower.blocks):
            self._first_kept = last
        self._zero = _zero_per_image(graph, rows)

    def append_rows(self, index: int, normed: str, rows: str) -> tuple[str, str]:
        """Append the prompts that stay from block ``index`` on, if any, to its (normed, rows)."""
        if index != self._first_kept:
            return normed, rows
        matrix = self._entering[index]
        inside = self._tower.blocks[index].norm_1(matrix)
        name = f"block_{index}/guests"
        return (
            self._append(normed, inside, name=f"{name}/normed"),
            self._append(rows, matrix, name=f"{name}/rows"),
        )

    def keys_and_values(self, index: int) -> PromptRows | None:
        """Append the keys and values of prompts that block ``index`` alone sees, if any."""
        if index not in self._entering or index == self._first_kept:
            return None
        matrix = self._entering[index]
        read = keys_and_values(self._tower.blocks[index], matrix)
        return PromptRows(self._give_batch(read, name=f"block_{index}/guests"), len(matrix))

    def _append(self, rows: str, matrix: Array, *, name: str) -> str:
        prompts = self._give_batch(matrix, name=name)
        batch, length, width = self._graph.shape(rows)
        shape = (batch, int(length) + len(matrix), width)
        return self._graph.add("Concat", [rows, prompts], shape, name=f"{name}/appended", axis=1)

    def _give_batch(self, matrix: Array, *, name: str) -> str:
        constant = self._graph.constant(f"{name}/constant", matrix[None])
        return self._graph.add("Add", [self._zero, constant], (BATCH, *matrix.shape), name=name)


def entering(prompts: VisualPrompts, tower: Tower) -> dict[int, Array]:
    """Return the prompts [length width] as they enter their blocks, by block.

    Raises
    ------
    GraphError
        They are for more blocks than the tower has, or of another width.
    """
    layers, _, width = prompts.tokens.shape
    if width != tower.width or prompts.first + layers > len(tower.blocks):
        raise GraphError(
            f"the visual prompts are {width} wide, for blocks {prompts.first} to "
            f"{prompts.first + layers - 1}; the image tower is {tower.width} wide and has blocks 0 "
            f"to {len(tower.blocks) - 1}: they belong to different models"
        )
    by_block: dict[int, Array] = dict(enumerate(prompts.tokens, prompts.first))
    if 0 in by_block and tower.norm_pre is not None:
        by_block[0] = tower.norm_pre(by_block[0])
    return by_block


def keys_and_values(block: Block, matrix: Array) -> Array:
    """Return what a block reads of prompts: [length 2*width], keys beside values, no biases."""
    weight = block.packed.weight[:, len(block.packed.weight) :]
    return (block.norm_1(matrix).astype(np.float64) @ weight).astype(np.float32)


def _zero_per_image(graph: Graph, rows: str) -> str:
    """Append a zero for each image: [batch 1 1]."""
    corner = graph.add(
        "Slice",
        [rows, graph.integers(0, 0), graph.integers(1, 1), graph.integers(1, 2)],
        (BATCH, 1, 1),
        name="guests/corner",
    )
    nothing = graph.constant("guests/nothing", 0.0)
    return graph.add("Mul", [corner, nothing], (BATCH, 1, 1), name="guests/zero")
