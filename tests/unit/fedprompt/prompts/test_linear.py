import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from tests.unit.fedprompt.prompts.heads import (
    check_gradients,
    images,
    matrix,
    moved,
    zero_shot,
)
from tests.unit.fedprompt.prompts.hosts import EXACT


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_are_those_of_a_linear_layer(clip64: FrozenClip, form: str) -> None:
    prompt, batch = moved(clip64, method="linear", form=form), images(clip64)
    weight = clip64.logit_scale * zero_shot(clip64) + matrix(prompt, "weight")
    expected = torch.stack([weight @ z + prompt.head.bias for z in batch.features])
    check_gradients(prompt, batch, expected)
    found = prompt.predict(EncodedImages(batch.features))
    torch.testing.assert_close(found, expected.detach(), rtol=EXACT, atol=EXACT)


def test_it_folds_into_rows_of_any_length_and_a_bias(clip: FrozenClip) -> None:
    prompt, batch = moved(clip, method="linear", form="lowrank", rank=2), images(clip)
    folded = prompt.fold()
    rows, bias = folded.class_vectors.numpy(), folded.bias.numpy()
    assert abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-2
    found = clip.logit_scale * batch.features.numpy() @ rows.T + bias
    expected = prompt(batch).logits.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert folded.visual is folded.adapter is folded.mixture is None
