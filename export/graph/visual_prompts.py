"""Visual prompts in the graph: guests of the tower's own rows.

What a prompt P_i becomes behind its block i is thrown away where block i+1 overwrites it or no
block follows, so nothing of it is ever read but

    K_i = LN_1(P_i) W_k,    V_i = LN_1(P_i) W_v        (biases are added with the own rows')

and these are constants. The prompt of the last prompted block stays: from there on it is rows among
rows. P_0 goes through ``ln_pre`` as the patches do.

A constant has no batch. One zero [batch 1 1], made of the images, gives it one by an addition: no
Shape, no Expand, and no row of zeros in the file for each row of the tower, as Pad would need.
"""

from typing import NamedTuple

import numpy as np

from export.fold.constants import VisualPrompts
from export.graph.builder import BATCH, Graph
from export.graph.read_tower import Array, Block, Tower
from fedprompt.errors import GraphError


class Attended(NamedTuple):
    """Name guests that a block attends to."""

    name: str  # [batch length 2*width]: keys beside values, without their biases
    length: int


class Guests:
    """Write visual prompts where they enter.

    Parameters
    ----------
    graph, tower
        Where to write, and the tower they enter.
    prompts
        None = nobody comes, and nothing is written.
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
        self.length = 1 + tower.grid**2  # rows of a block: the tower's own and those that stay
        self._entering: dict[int, Array] = {}
        self._staying = len(tower.blocks)  # the block from which on guests are rows
        if prompts is None:
            return
        self._entering = entering(prompts, tower)
        if (last := max(self._entering)) + 1 < len(tower.blocks):
            self._staying = last
        self._zero = _write_zero(graph, rows)

    def stay(self, index: int, normed: str, rows: str) -> tuple[str, str]:
        """Append the guests that stay from block ``index`` on, if any, to its (normed, rows)."""
        if index != self._staying:
            return normed, rows
        matrix = self._entering[index]
        self.length += len(matrix)
        inside = self._tower.blocks[index].norm_1(matrix)
        normed = self._append(normed, inside, name=f"block_{index}/guests/normed")
        return normed, self._append(rows, matrix, name=f"block_{index}/guests/rows")

    def attended(self, index: int) -> Attended | None:
        """Append the keys and values of guests that block ``index`` alone sees, if any."""
        if index not in self._entering or index == self._staying:
            return None
        matrix = self._entering[index]
        read = keys_and_values(self._tower.blocks[index], matrix)
        return Attended(self._give_batch(read, name=f"block_{index}/guests"), len(matrix))

    def _append(self, rows: str, matrix: Array, *, name: str) -> str:
        guests = self._give_batch(matrix, name=name)
        shape = (BATCH, self.length, self._tower.width)
        return self._graph.add("Concat", [rows, guests], shape, name=f"{name}/appended", axis=1)

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
    found: dict[int, Array] = dict(enumerate(prompts.tokens, prompts.first))
    if 0 in found and tower.norm_pre is not None:
        found[0] = tower.norm_pre(found[0])
    return found


def keys_and_values(block: Block, matrix: Array) -> Array:
    """Return what a block reads of guests: [length 2*width], keys beside values, no biases."""
    weight = block.packed.weight[:, len(block.packed.weight) :]
    return (block.norm_1(matrix).astype(np.float64) @ weight).astype(np.float32)


def _write_zero(graph: Graph, rows: str) -> str:
    """Append a zero for each image: [batch 1 1]."""
    corner = graph.add(
        "Slice",
        [rows, graph.integers(0, 0), graph.integers(1, 1), graph.integers(1, 2)],
        (BATCH, 1, 1),
        name="guests/corner",
    )
    nothing = graph.constant("guests/nothing", 0.0)
    return graph.add("Mul", [corner, nothing], (BATCH, 1, 1), name="guests/zero")
