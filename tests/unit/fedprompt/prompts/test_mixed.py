from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import build_prompt, recipe_of
from fedprompt.prompts.methods import METHODS, prompt_config
from fedprompt.prompts.mixed import Mixed
from fedprompt.prompts.recipe import HeadRecipe, Recipe
from tests.pictures import image_folder
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    LABELS,
    NAMES,
    TEMPLATE,
    encoded,
    moved,
)

# adapt is personal already; the server refuses the two together
MIXED = [n for n in METHODS if isinstance(recipe_of(n), Recipe) and n != "adapt"]


def pair(clip: FrozenClip, share: float, spread: float = 0.3, **config: object) -> Mixed:
    """Return two prompts away from their start, and from each other."""
    two = (moved(clip, seed=seed, spread=spread, **config) for seed in (1, 2))
    return Mixed(*two, share)


def all_of(clip: FrozenClip, prompt: Mixed) -> EncodedImages:
    found = encoded(clip, prompt.shared)
    return EncodedImages(found.features, found.rows)


def matrices(prompt: Mixed, side: str) -> tuple[list[torch.Tensor], ...]:
    """Return the shared and the local prompt's matrices of one tower, in the full form."""
    halves = (dict(half.host.named_parameters()) for half in (prompt.shared, prompt.local))
    return tuple([half[name] for name in sorted(half) if name.startswith(side)] for half in halves)


def mean(shared: torch.Tensor, local: torch.Tensor, share: float) -> torch.Tensor:
    """(1 - theta) shared + theta local, of length one."""
    mixed = (1 - share) * shared + share * local
    return mixed / mixed.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_logits_and_gradients_equal_the_equation_over_naive_towers(
    clip64: FrozenClip, share: float
) -> None:
    prompt = pair(clip64, share, method="ivlp")

    def logits() -> torch.Tensor:
        pixels = IMAGES.double()
        images = [naive.image_features(clip64, pixels, m) for m in matrices(prompt, "visual")]
        vectors = [naive.class_vectors(clip64, NAMES, ".", m) for m in matrices(prompt, "text")]
        return clip64.logit_scale * mean(*images, share) @ mean(*vectors, share).T

    expected = logits()
    torch.testing.assert_close(
        prompt.predict(all_of(clip64, prompt)), expected.detach(), rtol=EXACT, atol=EXACT
    )
    trained = list(prompt.parameters())
    wanted = torch.autograd.grad(F.cross_entropy(expected, LABELS), trained)
    loss = prompt.backward(encoded(clip64, prompt.shared), LABELS, None)
    assert loss == pytest.approx(float(F.cross_entropy(expected.detach(), LABELS)), abs=EXACT)
    for parameter, gradient in zip(trained, wanted, strict=True):
        assert (parameter.grad - gradient).norm() <= EXACT * gradient.norm()


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("method", MIXED)
def test_every_method_mixes_between_its_shared_and_its_local_prompt(
    clip: FrozenClip, method: str, form: str, tmp_path: Path
) -> None:
    """No part: the shared prompt. All: the local one. Between: both learn."""
    needs = {"spt": {"tokens": 2, "public": str(image_folder(tmp_path, ("cat", "dog"), 5))}}
    prompt = pair(clip, 0.0, spread=0.1, method=method, form=form, **needs.get(method, {}))
    images = all_of(clip, prompt)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(prompt.predict(images), prompt.shared.predict(images), **close)
    prompt.share = 1.0
    torch.testing.assert_close(prompt.predict(images), prompt.local.predict(images), **close)
    prompt.share = 0.5
    prompt.backward(encoded(clip, prompt.shared), LABELS, torch.Generator().manual_seed(0))
    for half in (prompt.shared, prompt.local):
        assert all(p.grad is not None and p.grad.any() for p in half.parameters())


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("method", [n for n in METHODS if isinstance(recipe_of(n), HeadRecipe)])
def test_of_heads_the_logits_are_mixed(clip: FrozenClip, method: str, form: str) -> None:
    halves = []
    for seed in (5, 6):  # noise that leaves CoCoOp's one hidden unit alive
        half = build_prompt(
            prompt_config(method=method, form=form, dropout=0.0), clip, NAMES, TEMPLATE
        )
        noise = np.random.default_rng(seed)
        arrays = half.arrays().items()
        half.load_arrays(PromptState({n: noise.normal(0.3, 0.3, a.shape) for n, a in arrays}))
        halves.append(half)
    prompt = Mixed(*halves, 0.2)
    with torch.no_grad():
        features = F.normalize(clip.encode_image(IMAGES), dim=-1)
    shared, local = (half.predict(EncodedImages(features)) for half in halves)
    expected = 0.8 * shared + 0.2 * local
    torch.testing.assert_close(prompt.predict(EncodedImages(features)), expected)
    loss = prompt.backward(Encoded(features), LABELS, None)
    assert loss == pytest.approx(float(F.cross_entropy(expected, LABELS)), rel=1e-4)
    for half in halves:
        assert all(p.grad is not None and p.grad.any() for p in half.parameters())


def test_only_the_shared_prompt_is_what_others_see(clip: FrozenClip) -> None:
    prompt = pair(clip, 0.5, rank=2)
    own = prompt.local.arrays()
    assert prompt.arrays().keys() == own.keys()
    assert all(np.array_equal(prompt.arrays()[n], prompt.shared.arrays()[n]) for n in own)
    prompt.load_arrays(PromptState({name: array + 1 for name, array in prompt.arrays().items()}))
    assert all(np.array_equal(prompt.local.arrays()[n], own[n]) for n in own)
    with pytest.raises(PromptError, match="expected"):
        prompt.load_arrays(PromptState({}))
    assert torch.equal(prompt.fold().class_vectors, prompt.shared.fold().class_vectors)
    assert prompt.describe() == prompt.shared.describe()
    assert prompt.frozen_arrays().keys() == prompt.shared.frozen_arrays().keys()
    assert prompt.information_density() == prompt.shared.information_density()


def test_both_prompts_bear_their_own_loss_term(clip: FrozenClip) -> None:
    prompt = pair(clip, 0.5, rank=2, density_weight=0.3)
    halves = prompt.shared.penalty() + prompt.local.penalty()
    assert torch.equal(prompt.penalty(), halves)
    assert not torch.equal(prompt.shared.penalty(), prompt.local.penalty())


def test_short_memory_halves_both(clip: FrozenClip) -> None:
    prompt = pair(clip, 0.5)
    whole = prompt.predict(all_of(clip, prompt))
    assert prompt.halve_chunk()
    assert prompt.shared._texts._speedups.chunk == prompt.local._texts._speedups.chunk == 2
    found = prompt.predict(all_of(clip, prompt))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    while prompt.halve_chunk():
        assert prompt.shared._texts._speedups.chunk
