import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.coupled import (
    check_gradients64,
    matrix,
    moved64,
    plain_features,
    tensors,
)
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    check_gradients,
    encoded,
    moved,
)


def tokens(prompt) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return t_i and v_i = W_i t_i + b_i."""
    texts = [matrix(prompt, f"text.{i}") for i in range(len(prompt.host.text))]
    own = tensors(prompt)
    visuals = [
        torch.stack([matrix(prompt, f"maps.{i}.weight") @ row for row in t]) + own[f"maps.{i}.bias"]
        for i, t in enumerate(texts)
    ]
    return texts, visuals


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip64: FrozenClip, form: str, depth: int
) -> None:
    prompt = moved(clip64, method="maple", form=form, depth=depth)

    def plain() -> torch.Tensor:
        features, vectors = plain_features(clip64, IMAGES.double(), *tokens(prompt))
        return clip64.logit_scale * features @ vectors.T

    check_gradients(prompt, encoded(clip64, prompt), plain)
    _, vectors = plain_features(clip64, IMAGES.double(), *tokens(prompt))
    torch.testing.assert_close(prompt.fold().class_vectors, vectors, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_gradients_in_float64(form: str) -> None:
    clip, prompt = moved64(method="maple", form=form)
    check_gradients64(clip, prompt, lambda: tokens(prompt))


def test_the_visual_prompts_are_the_equation_in_numpy(clip: FrozenClip) -> None:
    prompt = moved(clip, method="maple", spread=0.1)
    arrays, found = prompt.arrays(), prompt.fold().visual
    expected = [
        arrays[f"text.{i}"] @ arrays[f"maps.{i}.weight"].T + arrays[f"maps.{i}.bias"]
        for i in range(3)
    ]
    np.testing.assert_allclose(found.tokens.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found.first == 0


def test_the_maps_get_the_text_prompts_that_enter(clip: FrozenClip) -> None:
    """Under dropout, too: one draw of t_i for both towers."""
    prompt = moved(clip, method="maple", form="lowrank", dropout=0.5)
    for layer in prompt.host.maps:  # the maps' own dropout out of the way
        layer.weight.dropout = 0.0
    entering = prompt.host(torch.Generator().manual_seed(0))
    own = tensors(prompt)
    for i, text in enumerate(entering.text):
        expected = text @ matrix(prompt, f"maps.{i}.weight").T + own[f"maps.{i}.bias"]
        torch.testing.assert_close(entering.visual[i], expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(entering.text, prompt.host().text)
