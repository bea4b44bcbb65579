"""One operator at a time, beside numpy in float64; whole towers are in test_read_tower.py."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.graph.builder import BATCH, Graph
from export.graph.operators import FLAVOURS, Attention
from export.graph.read_tower import Block, Linear, Norm
from export.precision import Flavour

Exact = npt.NDArray[np.float64]
WIDTH, LENGTH, HEADS, IMAGES = 12, 5, 3, 2
SCALE = 1 / 128  # raw rows are bytes


def normal(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(seed: int, into: int, out: int) -> Linear:
    return Linear(weight=normal(seed, into, out), bias=normal(seed + 1, out))


NORM = Norm(scale=normal(1, WIDTH), shift=normal(2, WIDTH), epsilon=1e-5)
BLOCK = Block(
    norm_1=NORM,
    packed=linear(3, WIDTH, 3 * WIDTH),
    out=linear(5, WIDTH, WIDTH),
    norm_2=NORM,
    up=linear(7, WIDTH, WIDTH),
    down=linear(9, WIDTH, WIDTH),
)


def run(write: Callable[[Graph, str], list[str]]) -> tuple[Exact, list[Any]]:
    """Return the rows [images length width] that entered, and the outputs that ``write`` names."""
    shape = (BATCH, LENGTH, WIDTH)
    graph = Graph()
    raw = graph.add("Cast", ["images"], shape, name="raw", to=onnx.TensorProto.FLOAT)
    rows = graph.add("Mul", [raw, graph.constant("small", SCALE)], shape, name="rows")
    model = graph.model(shape, write(graph, rows))
    drawn = np.random.default_rng(0).integers(0, 256, (IMAGES, LENGTH, WIDTH), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return drawn * SCALE, session.run(None, {"images": drawn})


def attention(rows: Exact, asked: int) -> Exact:
    """Return softmax(q k' / sqrt(d)) v of the first ``asked`` rows, head by head."""
    q, k, v = np.split(rows @ BLOCK.packed.weight + BLOCK.packed.bias, 3, axis=-1)
    each = WIDTH // HEADS
    found = np.zeros((len(rows), asked, WIDTH))
    for image in range(len(rows)):
        for head in range(HEADS):
            part = slice(head * each, (head + 1) * each)
            for row in range(asked):
                scores = k[image, :, part] @ q[image, row, part] / np.sqrt(each)
                shares = np.exp(scores - scores.max())
                found[image, row, part] = shares / shares.sum() @ v[image, :, part]
    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("first_only", [False, True])
def test_attention_is_the_equation(flavour: Flavour, first_only: bool) -> None:

    def write(graph: Graph, rows: str) -> list[str]:
        whole = Attention(name="read", block=BLOCK, heads=HEADS, first_only=first_only)
        return [FLAVOURS[flavour](graph).attend(rows, whole)]

    rows, (found,) = run(write)
    np.testing.assert_allclose(found, attention(rows, 1 if first_only else LENGTH), atol=2e-5)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_sum_and_its_norm(flavour: Flavour) -> None:
    """The change is the rows themselves."""
    bias = normal(11, WIDTH)

    def write(graph: Graph, rows: str) -> list[str]:
        given = graph.constant("bias", bias)
        operators = FLAVOURS[flavour](graph)
        return list(operators.add_and_norm(rows, rows, given, NORM, name="normed", keep_sum=True))

    rows, (normed, total) = run(write)
    expected = 2 * rows + bias
    np.testing.assert_allclose(total, expected, atol=1e-5)
    centred = expected - expected.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + NORM.epsilon)
    np.testing.assert_allclose(normed, centred / spread * NORM.scale + NORM.shift, atol=2e-5)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "quick_gelu"])
def test_the_activation(flavour: Flavour, kind: Any) -> None:
    bias = normal(12, WIDTH)

    def write(graph: Graph, rows: str) -> list[str]:
        given = graph.constant("bias", bias)
        return [FLAVOURS[flavour](graph).activate(rows, given, kind, name="active")]

    rows, (found,) = run(write)
    x = rows + bias
    expected = {
        "gelu": x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
        "gelu_tanh": x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "quick_gelu": x / (1 + np.exp(-1.702 * x)),
    }[kind]
    np.testing.assert_allclose(found, expected, atol=2e-5)
