import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.hosts import LABELS, encoded, moved


def test_it_is_the_angle_to_the_true_class_by_finite_differences(clip: FrozenClip) -> None:
    prompt = moved(clip, method="coop", objective="alignment")
    images = encoded(clip, prompt)

    def value() -> float:
        """Return mean(1 - cos) from the features alone."""
        with torch.no_grad():
            features = images.features.numpy().astype(np.float64)
            vectors = prompt.class_vectors().numpy().astype(np.float64)
        return float(np.mean(1 - (features * vectors[LABELS.numpy()]).sum(-1)))

    loss = prompt.backward(images, LABELS, None)
    logits = clip.logit_scale * images.features @ prompt.class_vectors().detach().T
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, LABELS)), rel=1e-4)
    (parameter,) = prompt.parameters()
    way = parameter.grad / parameter.grad.norm()
    with torch.no_grad():
        parameter += 1e-2 * way
        ahead = value()
        parameter -= 2e-2 * way
        behind = value()
    assert (ahead - behind) / 2e-2 == pytest.approx(float(parameter.grad.norm()), rel=2e-2)
