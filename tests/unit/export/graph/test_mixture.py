import numpy as np
import pytest

from export.fold.constants import Constants
from tests.unit.export.graph.test_head import SCALE, Vectors, answer, normal, softmax, unit


@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_each_image_mixes_the_domains_class_vectors(class_vectors: Vectors, bias: float) -> None:
    mixture = unit(normal(1, 3, 5, 24)).astype(np.float32)
    images, logits, embeds = answer(
        Constants(class_vectors=class_vectors, mixture=mixture), bias=bias, domains=3
    )
    weights = softmax(images[:, :3] * 1e-3)
    expected = [
        [
            SCALE * z @ unit(sum(share * m for share, m in zip(w, vectors, strict=True))) + bias
            for vectors in mixture.transpose(1, 0, 2)
        ]
        for z, w in zip(unit(images), weights, strict=True)
    ]
    np.testing.assert_allclose(embeds, unit(images), atol=1e-6)
    np.testing.assert_allclose(logits, expected, atol=2e-5)
