"""Patch embedding from uint8 pixels: normalisation, class token and positions cost nothing extra.

With kernel K, pixels x, mean m and deviation s of each channel, and no padding in the convolution,

    K * (x / 255 - m) / s  =  (K / (255 s)) * x  -  sum(K m / s)

so normalisation is a rescaled kernel and a constant, and the constant is added with the positions.
Patches do not overlap, so the convolution is one matrix product over patches that are cut out while
the pixels are still one byte each.
"""

import numpy as np
from onnx import TensorProto

from export.graph.builder import BATCH, Graph
from export.graph.read_tower import Array, Tower
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
    lines, one_byte = patch * 3, TensorProto.UINT8
    tiles = graph.add(
        "Reshape",
        [images, graph.integers(0, grid, patch, grid, lines)],
        (BATCH, grid, patch, grid, lines),
        name="patches/lines",
        dtype=one_byte,
    )
    tiles = graph.add(
        "Transpose",
        [tiles],
        (BATCH, grid, grid, patch, lines),
        name="patches/tiles",
        dtype=one_byte,
        perm=[0, 1, 3, 2, 4],
    )
    flat = (BATCH, grid * grid, patch * lines)
    tiles = graph.add(
        "Reshape",
        [tiles, graph.integers(0, grid * grid, patch * lines)],
        flat,
        name="patches/bytes",
        dtype=one_byte,
    )
    return graph.add("Cast", [tiles], flat, name=PIXELS, to=TensorProto.FLOAT)
