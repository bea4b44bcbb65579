import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.hosts import EXACT, LABELS, encoded, moved


def test_it_is_the_angle_to_the_true_class_by_finite_differences(clip64: FrozenClip) -> None:
    prompt = moved(clip64, method="coop", objective="alignment")
    images = encoded(clip64, prompt)

    def value() -> float:
        """Return mean(1 - cos) from the features alone."""
        with torch.no_grad():
            vectors = prompt.class_vectors()
        return float((1 - (images.features * vectors[LABELS]).sum(-1)).mean())

    loss = prompt.backward(images, LABELS, None)
    logits = clip64.logit_scale * images.features @ prompt.class_vectors().detach().T
    assert loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, LABELS)), abs=EXACT
    )
    (parameter,) = prompt.parameters()
    way = parameter.grad / parameter.grad.norm()
    with torch.no_grad():
        parameter += 1e-5 * way
        ahead = value()
        parameter -= 2e-5 * way
        behind = value()
    assert (ahead - behind) / 2e-5 == pytest.approx(float(parameter.grad.norm()), rel=1e-6)
