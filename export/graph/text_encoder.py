"""The text tower as a graph: token ids in, class vectors of length one out, the prompt inside.

Row 0 is the start token, rows 1 ... n are the prompt: they take the place of what entered block 0,
and of what entered block i where the prompt is deep. The prompt is a constant that is an input as
well: nobody has to give it, and whoever swaps the prompt gives another of the same shape. Attention
is causal, so tokens behind the longest text may be left out: ``tokens`` has any length.

A prompt that does not stand in front of the name as a whole has a third input, ``places`` [classes
length]: i where row i of the prompt stands, n where a word does.

Standard operators only: a class is encoded once, not at every image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from export.fold.types import TextTokens
from export.graph.builder import Graph, Shape
from export.graph.fuse import CLASS_VECTORS
from export.graph.operators import PortableOperators, layer_norm
from export.graph.read_tower import (
    Activation,
    Array,
    Block,
    Linear,
    Norm,
    activation_of,
    as_array,
    is_plain_block,
    read_block,
    read_norm,
)
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

TOKENS, CONTEXT, PLACES = "tokens", "context", "places"
_CLASSES, _LENGTH = "classes", "length"
_UNSEEN = -1e30  # a score that softmax takes to zero, finite in every runtime
_REST = 1 << 30  # behind any text


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """The tensors of a causal open_clip text tower.

    ``end`` is the token where a class is read; None = at the largest id, as CLIP has it.
    """

    embedding: Array  # [vocabulary width]
    positions: Array  # [context_length width]
    heads: int
    blocks: tuple[Block, ...]
    activation: Activation
    norm: Norm
    projection: Linear | None  # [width joint]
    end: int | None

    @property
    def width(self) -> int:
        """Return the width of a token."""
        width: int = self.embedding.shape[1]
        return width

    @property
    def joint(self) -> int:
        """Return the numbers of a class vector."""
        return self.width if self.projection is None else self.projection.weight.shape[1]


def read_text_tower(clip: FrozenClip) -> TextTower:
    """Return the tensors of a CLIP's text tower, as float32 arrays.

    Raises
    ------
    GraphError
        The tower is not causal, reads a class elsewhere than at its end, or has other blocks.
    """
    tower = clip.text
    if not tower.reads_at_end() or not all(map(is_plain_block, tower.blocks)):
        raise GraphError(
            f"the text tower of {clip.name or 'this backbone'} is {type(tower.owner).__name__} "
            f"with pooling {tower.pool!r}; an open vocabulary needs a causal one of plain blocks "
            "that reads a class at its end: export without --open-vocabulary"
        )
    return TextTower(
        embedding=as_array(tower.embedding),
        positions=as_array(tower.positions),
        heads=tower.blocks[0].attn.num_heads,
        blocks=tuple(map(read_block, tower.blocks)),
        activation=activation_of(tower.blocks[0].mlp.gelu),
        norm=read_norm(tower.owner.ln_final),
        projection=_projection(tower.owner.text_projection),
        end=tower.end_id if tower.pool == "eos" else None,
    )


def _projection(module: Any) -> Linear | None:
    if module is None:
        return None
    if not isinstance(module, nn.Linear):
        return Linear(weight=as_array(module), bias=np.zeros(module.shape[1], np.float32))
    weight = as_array(module.weight).T
    zero = np.zeros(weight.shape[1], np.float32)
    return Linear(weight=weight, bias=zero if module.bias is None else as_array(module.bias))


def text_encoder(
    text: TextTower, context: TextTokens | None, *, leading: bool = True
) -> onnx.ModelProto:
    """Return the graph from ``tokens`` [classes length] to ``class_vectors`` [classes joint].

    ``leading`` is False for a prompt, of one layer, that does not stand in front of all names.
    """
    graph = Graph()
    inputs: dict[str, tuple[int, Shape]] = {TOKENS: (TensorProto.INT64, (_CLASSES, _LENGTH))}
    if context is not None:
        inputs[CONTEXT] = (TensorProto.FLOAT, context.shape)
        graph.constant(CONTEXT, context)
        if not leading:
            inputs[PLACES] = (TensorProto.INT64, (_CLASSES, _LENGTH))
    length = graph.add(
        "Shape", [TOKENS], (1,), name="length", dtype=TensorProto.INT64, start=1, end=2
    )
    placed = None if context is None or leading else context.shape
    rows, mask = _write_rows(graph, text, length, placed), _write_mask(graph, text, length)
    for index, block in enumerate(text.blocks):
        if context is not None and leading and index < len(context):
            rows = _write_prompt(graph, rows, index, context.shape)
        rows = _write_block(graph, rows, mask, text, block, f"block_{index}")
    _write_read_out(graph, rows, text)
    model = graph.model_of(inputs, [CLASS_VECTORS])
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_rows(graph: Graph, text: TextTower, length: str, placed: tuple[int, ...] | None) -> str:
    """Append token embeddings, with a prompt's rows where ``places`` says, and their positions."""
    shape = (_CLASSES, _LENGTH, text.width)
    rows = _write_embedding(graph, text, shape)
    if placed:
        rows = _write_placed(graph, rows, placed, shape)
    positions = graph.constant("positions", text.positions)
    used = graph.add(
        "Slice",
        [positions, graph.integers(0), length, graph.integers(0)],
        (_LENGTH, text.width),
        name="positions/used",
    )
    return graph.add("Add", [rows, used], shape, name="rows")


def _write_embedding(graph: Graph, text: TextTower, shape: Shape) -> str:
    """Append the lookup of tokens; rows that most of a vocabulary shares are stored once.

    The embedded CLIP has 13,175 rows for 49,408 tokens. A row's number is exact as a float.
    """
    table, numbers = np.unique(text.embedding, axis=0, return_inverse=True)
    if 2 * len(table) > len(text.embedding):
        embedding = graph.constant("embedding", text.embedding)
        return graph.add("Gather", [embedding, TOKENS], shape, name="embedded", axis=0)
    places = graph.constant("embedding/rows", numbers.reshape(-1))
    place = graph.add("Gather", [places, TOKENS], shape[:2], name="embedding/row", axis=0)
    place = graph.add(
        "Cast", [place], shape[:2], name="embedding/place", dtype=TensorProto.INT64,
        to=TensorProto.INT64,
    )  # fmt: skip
    embedding = graph.constant("embedding", table)
    return graph.add("Gather", [embedding, place], shape, name="embedded", axis=0)


def _write_placed(graph: Graph, rows: str, placed: tuple[int, ...], shape: Shape) -> str:
    """Append rows * kept + prompt, each looked up by ``places``: both sums are exact."""
    _, count, width = placed
    prompt = graph.add("Squeeze", [CONTEXT, graph.integers(0)], (count, width), name="placed/own")
    none = graph.constant("placed/none", np.zeros((1, width), np.float32))
    prompt = graph.add("Concat", [prompt, none], (count + 1, width), name="placed/rows", axis=0)
    prompt = graph.add("Gather", [prompt, PLACES], shape, name="placed/prompt", axis=0)
    one = graph.constant("placed/one", np.eye(1, count + 1, count, dtype=np.float32).T)
    kept = graph.add("Gather", [one, PLACES], (_CLASSES, _LENGTH, 1), name="placed/kept", axis=0)
    words = graph.add("Mul", [rows, kept], shape, name="placed/words")
    return graph.add("Add", [words, prompt], shape, name="placed")


def _write_mask(graph: Graph, text: TextTower, length: str) -> str:
    whole = np.triu(np.full((len(text.positions),) * 2, _UNSEEN, np.float32), 1)
    both = graph.add("Concat", [length, length], (2,), name="both", dtype=TensorProto.INT64, axis=0)
    return graph.add(
        "Slice",
        [graph.constant("causal", whole), graph.integers(0, 0), both, graph.integers(0, 1)],
        (_LENGTH, _LENGTH),
        name="mask",
    )


def _write_prompt(graph: Graph, rows: str, index: int, shape: tuple[int, ...]) -> str:
    """Append the prompt of one block in place of rows 1 ... n; block 0's gets its positions."""
    _, count, width = shape
    name = f"block_{index}/prompt"
    own = graph.add(
        "Slice",
        [CONTEXT, graph.integers(index), graph.integers(index + 1), graph.integers(0)],
        (1, count, width),
        name=f"{name}/own",
    )
    if index == 0:
        places = graph.add(
            "Slice",
            ["positions", graph.integers(1), graph.integers(1 + count), graph.integers(0)],
            (count, width),
            name=f"{name}/positions",
        )
        own = graph.add("Add", [own, places], (1, count, width), name=f"{name}/placed")
    first = _write_part(graph, rows, (0, 1), (_CLASSES, 1, width), name=f"{name}/first")
    rest = _write_part(graph, rows, (1 + count, _REST), (_CLASSES, "rest", width), f"{name}/rest")
    nothing = graph.constant(f"{name}/nothing", 0.0)
    zero = graph.add("Mul", [first, nothing], (_CLASSES, 1, width), name=f"{name}/zero")
    given = graph.add("Add", [zero, own], (_CLASSES, count, width), name=f"{name}/given")
    return graph.add("Concat", [first, given, rest], (_CLASSES, _LENGTH, width), name=name, axis=1)


def _write_part(graph: Graph, rows: str, span: tuple[int, int], shape: Shape, name: str) -> str:
    begin, end = span
    places = [graph.integers(begin), graph.integers(end), graph.integers(1)]
    return graph.add("Slice", [rows, *places], shape, name=name)


def _write_block(
    graph: Graph, rows: str, mask: str, text: TextTower, block: Block, name: str
) -> str:
    shape, operators = graph.shape(rows), PortableOperators(graph)
    normed = layer_norm(graph, rows, block.norm_1, name=f"{name}/norm_1")
    read = _write_attention(graph, normed, mask, block, text.heads, f"{name}/attention")
    change = graph.product(read, block.out.weight, name=f"{name}/out")
    bias = graph.constant(f"{name}/out/bias", block.out.bias)
    normed, rows = operators.add_and_norm(
        rows, change, bias, block.norm_2, name=f"{name}/norm_2", keep_sum=True
    )
    hidden = graph.product(normed, block.up.weight, name=f"{name}/up")
    bias = graph.constant(f"{name}/up/bias", block.up.bias)
    hidden = operators.activate(hidden, bias, text.activation, name=f"{name}/active")
    change = graph.product(hidden, block.down.weight, name=f"{name}/down")
    bias = graph.constant(f"{name}/down/bias", block.down.bias)
    change = graph.add("Add", [change, bias], shape, name=f"{name}/change")
    return graph.add("Add", [rows, change], shape, name=f"{name}/rows")


def _write_attention(
    graph: Graph, rows: str, mask: str, block: Block, heads: int, name: str
) -> str:
    """Append softmax(q k' + mask) v; 1 / sqrt(head width) is in the queries' weights."""
    width = len(block.packed.weight)
    each = width // heads
    query, key, value = _write_heads(graph, rows, block, heads, name)
    flipped = (1, _CLASSES, heads, each, _LENGTH)
    key = graph.add("Transpose", [key], flipped, name=f"{name}/flipped", perm=[0, 1, 2, 4, 3])
    square = (1, _CLASSES, heads, _LENGTH, _LENGTH)
    scores = graph.add("MatMul", [query, key], square, name=f"{name}/scores")
    scores = graph.add("Add", [scores, mask], square, name=f"{name}/masked")
    weights = graph.add("Softmax", [scores], square, name=f"{name}/weights", axis=-1)
    part = (_CLASSES, heads, _LENGTH, each)
    read = graph.add("MatMul", [weights, value], (1, *part), name=f"{name}/read")
    read = graph.add("Squeeze", [read, graph.integers(0)], part, name=f"{name}/squeezed")
    back = (_CLASSES, _LENGTH, heads, each)
    read = graph.add("Transpose", [read], back, name=f"{name}/back", perm=[0, 2, 1, 3])
    whole = (_CLASSES, _LENGTH, width)
    return graph.add("Reshape", [read, graph.integers(0, 0, width)], whole, name=name)


def _write_heads(graph: Graph, rows: str, block: Block, heads: int, name: str) -> list[str]:
    """Append queries, keys and values [1 classes heads length head_width]."""
    width = len(block.packed.weight)
    each = width // heads
    factor = np.repeat(np.array([each**-0.5, 1, 1], np.float32), width)
    packed = (_CLASSES, _LENGTH, 3 * width)
    rows = graph.product(rows, block.packed.weight * factor, name=f"{name}/packed")
    bias = graph.constant(f"{name}/packed/bias", block.packed.bias * factor)
    rows = graph.add("Add", [rows, bias], packed, name=f"{name}/biased")
    split = (_CLASSES, _LENGTH, 3, heads, each)
    rows = graph.add(
        "Reshape", [rows, graph.integers(0, 0, 3, heads, each)], split, name=f"{name}/split"
    )
    part: Shape = (_CLASSES, heads, _LENGTH, each)
    rows = graph.add("Transpose", [rows], (3, *part), name=f"{name}/turned", perm=[2, 0, 3, 1, 4])
    outputs = {f"{name}/{kind}": (1, *part) for kind in "qkv"}
    return graph.add_many("Split", [rows, graph.integers(1, 1, 1)], outputs, axis=0)


def _write_read_out(graph: Graph, rows: str, text: TextTower) -> None:
    """Append ``class_vectors``: the row of the end token, normed, projected, of length one."""
    asked = TOKENS
    if text.end is not None:
        same = graph.add(
            "Equal", [TOKENS, graph.integers(text.end)], (_CLASSES, _LENGTH), name="end/same",
            dtype=TensorProto.BOOL,
        )  # fmt: skip
        asked = graph.add(
            "Cast", [same], (_CLASSES, _LENGTH), name="end/found", dtype=TensorProto.INT64,
            to=TensorProto.INT64,
        )  # fmt: skip
    place = graph.add(
        "ArgMax", [asked], (_CLASSES, 1), name="end/place", dtype=TensorProto.INT64, axis=1
    )
    shape = (_CLASSES, text.width)
    pooled = graph.add("GatherND", [rows, place], shape, name="pooled", batch_dims=1)
    pooled = layer_norm(graph, pooled, text.norm, name="norm")
    joint = (_CLASSES, text.joint)
    if text.projection is not None:
        pooled = graph.product(pooled, text.projection.weight, name="projected")
        bias = graph.constant("projected/bias", text.projection.bias)
        pooled = graph.add("Add", [pooled, bias], joint, name="projected/biased")
    graph.l2_normalise(pooled, name=CLASS_VECTORS)
