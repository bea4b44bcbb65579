import numpy as np

from export.fold.constants import Adapter, Constants
from tests.unit.export.graph.test_head import SCALE, Vectors, answer, normal, softmax, unit


def test_features_are_adapted_before_they_are_compared(class_vectors: Vectors) -> None:
    adapter = Adapter(
        hidden=normal(1, 24, 24),
        hidden_bias=normal(2, 24),
        gate=normal(3, 24, 24),
        gate_bias=normal(4, 24),
    )
    images, logits, embeds = answer(Constants(class_vectors=class_vectors, adapter=adapter))
    expected = []
    for z in unit(images):
        scores = adapter.gate @ np.tanh(adapter.hidden @ z + adapter.hidden_bias)
        expected.append(unit(softmax(scores + adapter.gate_bias) * z))
    np.testing.assert_allclose(embeds, expected, atol=2e-6)
    np.testing.assert_allclose(logits, SCALE * np.stack(expected) @ class_vectors.T, atol=1e-4)
