"""The transformer: residual blocks and the pooling behind them.

Only the class token is read at the end, so in the last block it alone asks (one query), and
everything behind that attention has one row. Rows of visual prompts stand behind the tower's own
and are left out of any pooling.
"""

from export.fold.constants import VisualPrompts
from export.graph.builder import BATCH, Graph
from export.graph.operators import Operators, write_first_row, write_norm
from export.graph.read_tower import Block, Tower
from export.graph.visual_prompts import Guests


def write_blocks(
    graph: Graph,
    rows: str,
    tower: Tower,
    operators: Operators,
    prompts: VisualPrompts | None = None,
) -> tuple[str, str]:
    """Append all blocks behind rows [batch length width].

    Returns pooled rows [batch width] and what enters the last block's attention [batch length
    width], where the rows of prompts that stayed stand behind the tower's own.
    """
    guests = Guests(graph, tower, prompts, rows)
    shape = (BATCH, guests.length, tower.width)
    if tower.norm_pre is not None:
        rows = write_norm(graph, rows, tower.norm_pre, shape, name="norm_pre")
    normed = write_norm(graph, rows, tower.blocks[0].norm_1, shape, name="block_0/norm_1")
    for index in range(len(tower.blocks)):
        entering, rows = guests.stay(index, normed, rows)
        normed, rows = _write_block(graph, entering, rows, tower, index, operators, guests)
    return _pool(graph, normed, tower), entering


def _write_block(
    graph: Graph,
    normed: str,
    rows: str,
    tower: Tower,
    index: int,
    operators: Operators,
    guests: Guests,
) -> tuple[str, str]:
    """Append one block; return (input of the next block normed, the same before the norm)."""
    name, length, width = f"block_{index}", guests.length, tower.width
    block, last = tower.blocks[index], index + 1 == len(tower.blocks)
    cut = last and tower.pool == "token"
    read = operators.attend(
        graph,
        normed,
        block,
        name=f"{name}/attention",
        heads=tower.heads,
        length=length,
        first_only=cut,
        guests=guests.attended(index),
    )
    if cut:
        rows, length = write_first_row(graph, rows, width, name=f"{name}/first"), 1
    shape = (BATCH, length, width)
    change = graph.add(
        "MatMul",
        [read, graph.constant(f"{name}/out/weight", block.out.weight)],
        shape,
        name=f"{name}/out",
    )
    bias = graph.constant(f"{name}/out/bias", block.out.bias)
    normed, rows = operators.add_and_norm(
        graph, rows, change, bias, block.norm_2, shape, name=f"{name}/norm_2", keep_sum=True
    )
    change, bias = _write_mlp(graph, normed, tower, block, length, operators, name=f"{name}/mlp")
    if last and tower.pool == "mean_norm":
        change = graph.add("Add", [change, bias], shape, name=f"{name}/change")
        rows = graph.add("Add", [rows, change], shape, name=f"{name}/sum")
        return rows, rows
    norm = tower.norm_post if last else tower.blocks[index + 1].norm_1
    target = "norm_post" if last else f"block_{index + 1}/norm_1"
    return operators.add_and_norm(
        graph, rows, change, bias, norm, shape, name=target, keep_sum=not last
    )


def _write_mlp(
    graph: Graph,
    rows: str,
    tower: Tower,
    block: Block,
    length: int,
    operators: Operators,
    *,
    name: str,
) -> tuple[str, str]:
    """Append both layers; return the result before its bias, and the bias."""
    wide = (BATCH, length, len(block.up.bias))
    rows = graph.add(
        "MatMul",
        [rows, graph.constant(f"{name}/up/weight", block.up.weight)],
        wide,
        name=f"{name}/up",
    )
    bias = graph.constant(f"{name}/up/bias", block.up.bias)
    rows = operators.activate(graph, rows, bias, tower.activation, wide, name=f"{name}/active")
    down = graph.constant(f"{name}/down/weight", block.down.weight)
    change = graph.add("MatMul", [rows, down], (BATCH, length, tower.width), name=f"{name}/down")
    return change, graph.constant(f"{name}/down/bias", block.down.bias)


def _pool(graph: Graph, rows: str, tower: Tower) -> str:
    width = tower.width
    if tower.pool == "token":
        return graph.add(
            "Reshape", [rows, graph.integers(-1, width)], (BATCH, width), name="pooled"
        )
    patches = graph.add(
        "Slice",
        [rows, graph.integers(1), graph.integers(1 + tower.grid**2), graph.integers(1)],
        (BATCH, tower.grid**2, width),
        name="pooled/patches",
    )
    mean = graph.add(
        "ReduceMean",
        [patches, graph.integers(1)],
        (BATCH, width),
        name="pooled/mean",
        keepdims=0,
    )
    if tower.pool == "norm_mean":
        return mean
    return write_norm(graph, mean, tower.norm_post, (BATCH, width), name="norm_post")
