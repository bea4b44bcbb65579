import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.hosts import LABELS, encoded, moved
from tests.unit.fedprompt.prompts.objectives.plain import check, cross_entropy, frozen, tuned


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0])
def test_class_vectors_are_held_to_the_frozen_ones(
    clip64: FrozenClip, form: str, factor: float
) -> None:
    prompt = moved(clip64, method="kgcoop", form=form, regularisation=factor)
    (features, vectors), (_, known) = tuned(clip64, prompt), frozen(clip64)
    loss = cross_entropy(clip64.logit_scale * features @ vectors.T)
    cosines = torch.stack([g @ k for g, k in zip(vectors, known, strict=True)])
    wanted = torch.autograd.grad(
        loss + factor * 8 * (1 - cosines).mean(), list(prompt.parameters())
    )
    found = prompt.backward(encoded(clip64, prompt), LABELS, None)
    check(prompt, found, loss, wanted)
