import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.heads import (
    check_gradients,
    images,
    make,
    matrix,
    moved,
    zero_shot,
)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_are_those_of_the_equation(clip64: FrozenClip, form: str) -> None:
    prompt, batch = moved(clip64, method="fedclip", form=form), images(clip64)
    hidden, gate, own = matrix(prompt, "hidden"), matrix(prompt, "gate"), prompt.head
    rows = []
    for z in batch.features:
        scores = gate @ torch.tanh(hidden @ z + own.hidden_bias) + own.gate_bias
        weighed = scores.exp() / scores.exp().sum() * z
        cosines = zero_shot(clip64) @ weighed / (weighed**2).sum().sqrt()
        rows.append(clip64.logit_scale * cosines)
    check_gradients(prompt, batch, torch.stack(rows))


def test_it_folds_into_class_vectors_and_the_adapter(clip: FrozenClip) -> None:
    prompt, batch = moved(clip, method="fedclip", form="lowrank", rank=3), images(clip)
    folded = prompt.fold()
    torch.testing.assert_close(folded.class_vectors, zero_shot(clip), rtol=1e-5, atol=1e-6)
    weighed = folded.adapter(batch.features)
    found = clip.logit_scale * weighed @ folded.class_vectors.T
    torch.testing.assert_close(found, prompt(batch).logits.detach(), rtol=1e-4, atol=1e-4)
    assert folded.visual is folded.bias is folded.mixture is None


def test_the_seed_draws_the_hidden_layer_alone(clip: FrozenClip) -> None:
    one, other = (make(clip, method="fedclip", seed=seed).arrays() for seed in (0, 1))
    assert [name for name in one if not np.array_equal(one[name], other[name])] == ["hidden"]
    assert np.abs(one["hidden"]).max() <= 24**-0.5
    assert np.abs(one["hidden"]).max() > 0.9 * 24**-0.5
