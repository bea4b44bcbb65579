import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.hosts import LABELS, encoded, moved
from tests.unit.fedprompt.prompts.objectives.plain import (
    check,
    cross_entropy,
    divergence,
    frozen,
    tuned,
)


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_features_and_logits_are_held_to_the_frozen_ones(
    clip: FrozenClip, form: str, factor: float
) -> None:
    prompt = moved(clip, method="promptsrc", form=form, depth=2, regularisation=factor)
    (features, vectors), (images, texts) = tuned(clip, prompt), frozen(clip)
    logits, known = (
        clip.logit_scale * features @ vectors.T,
        clip.logit_scale * images @ texts.T,
    )
    loss = cross_entropy(logits)
    text = 25 * (vectors - texts).abs().mean()
    image = 10 * (features - images).abs().mean()
    apart = text + image + divergence(known, logits).sum() / logits.numel()
    wanted = torch.autograd.grad(loss + factor * apart, list(prompt.parameters()))
    found = prompt.backward(encoded(clip, prompt), LABELS, None)
    check(prompt, found, loss, wanted)
