import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.graph import BATCH, Graph
from export.head import write_head

Vectors = npt.NDArray[np.float32]


@pytest.mark.parametrize("bias", [0.0, -10.0])
@pytest.mark.parametrize("projected", [False, True])
def test_the_equation(class_vectors: Vectors, bias: float, projected: bool) -> None:
    width = 6 if projected else 24
    rng = np.random.default_rng(0)
    projection = rng.standard_normal((6, 24)).astype(np.float32) if projected else None
    graph = Graph()
    raw = graph.add("Cast", ["images"], (BATCH, width), name="raw", to=onnx.TensorProto.FLOAT)
    write_head(graph, raw, projection, class_vectors, 50.0, bias)
    model = graph.model((BATCH, width), ["logits", "image_embeds"])
    images = rng.integers(0, 256, (3, width), dtype=np.uint8)
    images[0] = 0  # of no length: must not become NaN
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits, embeds = session.run(None, {"images": images})
    features = images.astype(np.float64)
    if projection is not None:
        features = features @ projection
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(embeds, unit, atol=1e-6)
    np.testing.assert_allclose(logits, 50 * unit @ class_vectors.T + bias, atol=2e-5)
