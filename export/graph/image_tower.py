"""Write an image tower: patches, residual blocks, pooling, and the weights of domains.

Normalisation, class token and positions cost nothing extra. With kernel K, pixels x, mean m and
deviation s of each channel, and no padding in the convolution,

    K * (x / 255 - m) / s  =  (K / (255 s)) * x  -  sum(K m / s)

so normalisation is a rescaled kernel and a constant, which is added with the positions. Patches do
not overlap, so the convolution is one matrix product over patches that are cut out while the pixels
are still one byte each.

Only the class token is read at the end, so in the last block it alone queries, and everything
behind that attention has one row. Rows of visual prompts stand behind the tower's own and are left
out of any pooling.
"""

import numpy as np
from onnx import TensorProto

from export.fold.constants import VisualPrompts
from export.graph.builder import BATCH, Graph
from export.graph.operators import Attention, Operators, first_row, layer_norm
from export.graph.read_tower import Array, Block, Tower
from export.graph.visual_prompts import PromptWriter
from fedprompt.data.preprocess import Preprocessing

PIXELS, WEIGHT, ADDED = "patches/pixels", "patches/weight", "patches/added"
EMBEDDED = "patches/embedded"


def write_patches(graph: Graph, images: str, tower: Tower, pre: Preprocessing) -> str:
    """Append the embedding of uint8 [batch size size 3]; return rows [batch 1+patches width]."""
    grid, patch, width = tower.grid, tower.patch, tower.width
    used = grid * patch
    if used != tower.size:  # a convolution leaves an incomplete patch out
        images = graph.add(
            "Slice",
            [images, graph.integers(0, 0), graph.integers(used, used), graph.integers(1, 2)],
            (BATCH, used, used, 3),
            name="patches/whole",
            dtype=TensorProto.UINT8,
        )
    pixels = _cut(graph, images, grid, patch)
    weight, offset = fold_normalisation(tower.kernel, pre)
    rows = graph.add(
        "MatMul",
        [pixels, graph.constant(WEIGHT, weight)],
        (BATCH, grid * grid, width),
        name=EMBEDDED,
    )
    shape = (BATCH, 1 + grid * grid, width)
    rows = graph.add("Pad", [rows, graph.integers(0, 1, 0, 0, 0, 0)], shape, name="patches/padded")
    added = tower.positions + np.vstack([tower.first, np.tile(offset, (grid * grid, 1))])
    return graph.add("Add", [rows, graph.constant(ADDED, added[None])], shape, name="patches/rows")


def fold_normalisation(kernel: Array, pre: Preprocessing) -> tuple[Array, Array]:
    """Return the weight [patch*patch*3 width] for raw pixels and the constant [width]."""
    exact = kernel.astype(np.float64)
    mean, std = (np.array(v, np.float64).reshape(1, 3, 1, 1) for v in (pre.mean, pre.std))
    scaled = exact / (255 * std)
    weight = scaled.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    offset = -(exact * mean / std).sum((1, 2, 3))
    return weight.astype(np.float32), offset.astype(np.float32)


def _cut(graph: Graph, images: str, grid: int, patch: int) -> str:
    """Append the cutting of images into rows of pixels [batch patches patch*patch*3], as float."""
    line, one_byte = patch * 3, TensorProto.UINT8
    tiles = graph.add(
        "Reshape",
        [images, graph.integers(0, grid, patch, grid, line)],
        (BATCH, grid, patch, grid, line),
        name="patches/lines",
        dtype=one_byte,
    )
    tiles = graph.add(
        "Transpose",
        [tiles],
        (BATCH, grid, grid, patch, line),
        name="patches/tiles",
        dtype=one_byte,
        perm=[0, 1, 3, 2, 4],
    )
    flat = (BATCH, grid * grid, patch * line)
    tiles = graph.add(
        "Reshape",
        [tiles, graph.integers(0, grid * grid, patch * line)],
        flat,
        name="patches/bytes",
        dtype=one_byte,
    )
    return graph.add("Cast", [tiles], flat, name=PIXELS, to=TensorProto.FLOAT)


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
    writer = PromptWriter(graph, tower, prompts, rows)
    if tower.norm_pre is not None:
        rows = layer_norm(graph, rows, tower.norm_pre, name="norm_pre")
    normed = layer_norm(graph, rows, tower.blocks[0].norm_1, name="block_0/norm_1")
    for index, block in enumerate(tower.blocks):
        entering, rows = writer.append_rows(index, normed, rows)
        last = index + 1 == len(tower.blocks)
        attention = Attention(
            name=f"block_{index}/attention",
            block=block,
            heads=tower.heads,
            first_only=last and tower.pool == "token",
            prompts=writer.keys_and_values(index),
        )
        read = operators.attend(entering, attention)
        if attention.first_only:
            rows = first_row(graph, rows, name=f"block_{index}/first")
        change = graph.product(read, block.out.weight, name=f"block_{index}/out")
        bias = graph.constant(f"block_{index}/out/bias", block.out.bias)
        normed, rows = operators.add_and_norm(
            rows, change, bias, block.norm_2, name=f"block_{index}/norm_2", keep_sum=True
        )
        change, bias = _write_mlp(graph, normed, tower, block, operators, f"block_{index}/mlp")
        if last and tower.pool == "mean_norm":
            shape = graph.shape(rows)
            change = graph.add("Add", [change, bias], shape, name=f"block_{index}/mlp/change")
            normed = graph.add("Add", [rows, change], shape, name=f"block_{index}/mlp/sum")
        else:
            norm = tower.norm_post if last else tower.blocks[index + 1].norm_1
            name = "norm_post" if last else f"block_{index + 1}/norm_1"
            normed, rows = operators.add_and_norm(
                rows, change, bias, norm, name=name, keep_sum=not last
            )
    return _pool(graph, normed, tower), entering


def _write_mlp(
    graph: Graph, rows: str, tower: Tower, block: Block, operators: Operators, name: str
) -> tuple[str, str]:
    """Append both layers; return the result before its bias, and the bias."""
    rows = graph.product(rows, block.up.weight, name=f"{name}/up")
    bias = graph.constant(f"{name}/up/bias", block.up.bias)
    rows = operators.activate(rows, bias, tower.activation, name=f"{name}/active")
    change = graph.product(rows, block.down.weight, name=f"{name}/down")
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
    return (
        mean
        if tower.pool == "norm_mean"
        else layer_norm(graph, mean, tower.norm_post, name="norm_post")
    )


def write_domain_weights(graph: Graph, normed: str, tower: Tower, count: int) -> str:
    """Append the weights of the domains [batch domains], one for each visual prompt.

    The prompts stay from block 0 on, a token a domain. With q the class token's query in the last
    block and k_i the key of token i there,

        w_i = mean over heads of softmax_i(q . k_i / sqrt(head width))

    The keys' bias adds the same to every q . k_i of a head, which softmax takes out again: it is
    left out. ``normed`` is what enters the last block's attention [batch length width]: the tower's
    own rows and ``count`` prompts behind them. Source: ADAPT, arXiv 2310.03103.
    """
    own, width, heads = 1 + tower.grid**2, tower.width, tower.heads
    packed, scale = tower.blocks[-1].packed, (width // heads) ** -0.5
    first = first_row(graph, normed, name="domains/first")
    weight = graph.constant("domains/query/weight", packed.weight[:, :width] * scale)
    query = graph.add("MatMul", [first, weight], (BATCH, 1, width), name="domains/query/raw")
    bias = graph.constant("domains/query/bias", packed.bias[:width] * scale)
    query = graph.add("Add", [query, bias], (BATCH, 1, width), name="domains/query")
    shape = (BATCH, count, width)
    ends = [graph.integers(own), graph.integers(own + count), graph.integers(1)]
    prompts = graph.add("Slice", [normed, *ends], shape, name="domains/guests")
    keys = graph.product(prompts, packed.weight[:, width : 2 * width], name="domains/keys")
    products = graph.add("Mul", [keys, query], shape, name="domains/products")
    split = (BATCH, count, heads, width // heads)
    products = graph.add(
        "Reshape",
        [products, graph.integers(0, count, heads, width // heads)],
        split,
        name="domains/split",
    )
    each = (BATCH, count, heads)
    scores = graph.add(
        "ReduceSum", [products, graph.integers(3)], each, name="domains/scores", keepdims=0
    )
    shares = graph.add("Softmax", [scores], each, name="domains/shares", axis=1)
    return graph.add(
        "ReduceMean",
        [shares, graph.integers(2)],
        (BATCH, count),
        name="domains/weights",
        keepdims=0,
    )
