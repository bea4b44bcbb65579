from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.fold.constants import Constants
from export.graph.builder import BATCH, Graph
from export.graph.head import Features, write_head

Vectors = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]
SCALE = 50.0


def normal(seed: int, *shape: int) -> Vectors:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(rows: npt.NDArray[Any]) -> Exact:
    exact = rows.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), 1e-12)


def softmax(rows: npt.NDArray[Any]) -> Exact:
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def answer(
    constants: Constants, projection: Vectors | None = None, bias: float = 0.0, domains: int = 0
) -> tuple[npt.NDArray[np.uint8], Vectors, Vectors]:
    """Return images, logits and embeddings of a head on raw pixels.

    Domains are weighed by the softmax of a thousandth of the first pixels.
    """
    width = 24 if projection is None else len(projection)
    graph = Graph()
    raw = graph.add("Cast", ["images"], (BATCH, width), name="raw", to=onnx.TensorProto.FLOAT)
    weights = ""
    if domains:
        ends = [graph.integers(0), graph.integers(domains), graph.integers(1)]
        first = graph.add("Slice", [raw, *ends], (BATCH, domains), name="first")
        small = graph.constant("small", 1e-3)
        first = graph.add("Mul", [first, small], (BATCH, domains), name="scores")
        weights = graph.add("Softmax", [first], (BATCH, domains), name="weights", axis=-1)
    features = Features(name=raw, projection=projection, domains=weights)
    write_head(graph, features, constants, SCALE, bias)
    model = graph.model((BATCH, width), ["logits", "image_embeds"])
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, width), dtype=np.uint8)
    images[0] = 0  # of no length: must not become NaN
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits, embeds = session.run(None, {"images": images})
    return images, logits, embeds


@pytest.mark.parametrize("bias", [0.0, -10.0])
@pytest.mark.parametrize("projected", [False, True])
def test_the_equation(constants: Constants, bias: float, projected: bool) -> None:
    projection = normal(0, 6, 24) if projected else None
    images, logits, embeds = answer(constants, projection, bias)
    features = images.astype(np.float64)
    if projection is not None:
        features = features @ projection
    np.testing.assert_allclose(embeds, unit(features), atol=1e-6)
    expected = SCALE * unit(features) @ constants.class_vectors.T + bias
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_a_probe_has_weights_of_any_length_and_a_bias_for_each_class(bias: float) -> None:
    probe = Constants(class_vectors=normal(1, 5, 24) / 20, bias=normal(2, 5))
    images, logits, _ = answer(probe, bias=bias)
    assert probe.bias is not None
    expected = SCALE * unit(images) @ probe.class_vectors.T + probe.bias + bias
    np.testing.assert_allclose(logits, expected, atol=2e-5)
