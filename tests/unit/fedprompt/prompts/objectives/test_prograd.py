import numpy as np
import pytest
import torch

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.objectives.prograd import aligned
from fedprompt.prompts.prompted import PromptedClip
from tests.unit.fedprompt.prompts.hosts import LABELS, NAMES, TEMPLATE, encoded, moved
from tests.unit.fedprompt.prompts.objectives.plain import (
    check,
    cross_entropy,
    divergence,
    frozen,
    tuned,
)


def equation(g: np.ndarray, k: np.ndarray, share: float = 1.0) -> np.ndarray:
    direction = k.ravel() / np.sqrt((k**2).sum())
    dot = g.ravel() @ direction
    return g - share * dot * direction.reshape(k.shape) if dot < 0 else g


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_only_the_part_against_is_taken_out(share: float) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(20, 2, 3, 4))
    conflicts = [bool((g * k).sum() < 0) for g, k in pairs]
    assert 0 < sum(conflicts) < 20
    for (g, k), conflict in zip(pairs, conflicts, strict=True):
        found = aligned(torch.tensor(g), torch.tensor(k), share).numpy()
        np.testing.assert_allclose(found, equation(g, k, share), rtol=1e-9, atol=1e-12)
        assert np.array_equal(found, g) == (not conflict)
        if share == 1.0:
            assert (found * k).sum() >= -1e-9


def test_without_a_known_direction_nothing_changes() -> None:
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(aligned(gradient, torch.zeros(3, 4), 1.0), gradient)


def plain(
    clip: FrozenClip, prompt: PromptedClip, share: float
) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Return the loss, the gradients by the equation, and how many tensors conflict."""
    (features, vectors), (images, texts) = tuned(clip, prompt), frozen(clip)
    logits = clip.logit_scale * features @ vectors.T
    loss = cross_entropy(logits)
    apart = divergence(clip.logit_scale * images @ texts.T, logits).mean()
    trained = list(prompt.parameters())
    wanted = torch.autograd.grad(loss, trained, retain_graph=True)
    known = torch.autograd.grad(apart, trained)
    pairs = [(g.numpy(), k.numpy()) for g, k in zip(wanted, known, strict=True)]
    steps = [torch.from_numpy(equation(g, k, share)) for g, k in pairs]
    return loss, steps, sum(float((g * k).sum()) < 0 for g, k in pairs)


@pytest.mark.parametrize(("form", "spread"), [("full", 0.05), ("lowrank", 0.1)])
def test_gradients_equal_the_equation_conflict_or_not(
    clip64: FrozenClip, form: str, spread: float
) -> None:
    conflicts = 0
    for seed in range(6):
        prompt = moved(clip64, seed, spread, method="prograd", form=form, regularisation=0.7)
        loss, wanted, count = plain(clip64, prompt, 0.7)
        found = prompt.backward(encoded(clip64, prompt), LABELS, None)
        check(prompt, found, loss, wanted)
        conflicts += count
    assert conflicts > 0


def test_gradients_are_added(clip: FrozenClip) -> None:
    """As backward() of any loss does: `fit` adds the penalty's after it."""
    prompt = moved(clip, method="prograd")
    images = encoded(clip, prompt)
    prompt.backward(images, LABELS, None)
    once = [parameter.grad.clone() for parameter in prompt.parameters()]
    prompt.backward(images, LABELS, None)
    for parameter, single in zip(prompt.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * single)


def test_classes_in_chunks_change_nothing_but_rounding(clip: FrozenClip) -> None:
    """Two gradients of one graph whose parts are computed again."""
    config = prompt_config(method="prograd", dropout=0.0)
    whole = moved(clip, spread=0.05, method="prograd")
    parts = build_prompt(config, clip, NAMES, TEMPLATE, speedups=Speedups(chunk=2))
    parts.load_arrays(whole.arrays())
    images = encoded(clip, whole)
    for prompt in (whole, parts):
        prompt.backward(images, LABELS, None)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
