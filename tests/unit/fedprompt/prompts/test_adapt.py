import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.adapt import mixed_logits
from fedprompt.prompts.template import Template
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    LABELS,
    NAMES,
    TEMPLATE,
    encoded,
    make,
    moved,
)

DOMAINS = "ink, photo, clay"


def matrix(prompt, name: str) -> Tensor:
    """Return a folded matrix from what is trained, by names alone."""
    found = dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())
    if f"{name}.matrix" in found:
        return found[f"{name}.matrix"]
    return found[f"{name}.start"] + found[f"{name}.A"] @ found[f"{name}.B"]


def plain_weights(clip: FrozenClip, visual: Tensor) -> Tensor:
    """Return the weights [images domains] from torch's own attention, asked by a hook."""
    last = clip.model.visual.transformer.resblocks[-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    naive.image_features(clip, IMAGES.to(visual), [visual])
    hook.remove()
    rows = last.ln_1(seen[0])
    heads, count, width = last.attn.num_heads, len(visual), rows.shape[-1]
    weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
    total = 0.0
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        query = rows[:, 0] @ weight[:width][part].T + bias[:width][part]
        key = rows[:, -count:] @ weight[width : 2 * width][part].T
        key = key + bias[width : 2 * width][part]
        scores = (query.unsqueeze(1) * key).sum(-1) / (width / heads) ** 0.5
        total = total + scores.softmax(-1)
    return total / heads


def plain_logits(clip: FrozenClip, prompt) -> Tensor:
    visual = matrix(prompt, "visual")
    features = naive.image_features(clip, IMAGES.to(visual), [visual])
    weights = plain_weights(clip, visual)
    texts = [matrix(prompt, f"text.{i}") for i in range(3)]
    vectors = torch.stack([naive.class_vectors(clip, NAMES, ".", [text]) for text in texts])
    mixed = F.normalize((weights[:, :, None, None] * vectors).sum(1), dim=-1)
    return clip.logit_scale * (features.unsqueeze(1) * mixed).sum(-1)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_of_a_site_equal_a_naive_computation(
    clip64: FrozenClip, form: str
) -> None:
    prompt = moved(clip64, method="adapt", form=form, domains=DOMAINS, domain="photo")
    expected = plain_logits(clip64, prompt)
    loss = (1 - expected[torch.arange(6), LABELS] / clip64.logit_scale).mean()
    named = {n: p for n, p in prompt.host.named_parameters() if n.startswith(("text.1", "visual"))}
    assert {id(p) for p in prompt.parameters()} == {id(p) for p in named.values()}
    wanted = torch.autograd.grad(loss, list(named.values()))

    found = prompt.backward(encoded(clip64, prompt), LABELS, None)
    logits = prompt(encoded(clip64, prompt)).logits
    torch.testing.assert_close(logits, expected, rtol=EXACT, atol=EXACT)
    assert found == pytest.approx(float(F.cross_entropy(expected.detach(), LABELS)), abs=EXACT)
    for parameter, gradient in zip(named.values(), wanted, strict=True):
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= EXACT * gradient.norm()
    others = [p for n, p in prompt.host.named_parameters() if n not in named]
    assert all(parameter.grad is None for parameter in others)


def test_what_is_scored_and_what_folds_needs_no_domain(clip: FrozenClip) -> None:
    prompt = moved(clip, method="adapt", domains=DOMAINS)
    images = encoded(clip, prompt)
    expected = plain_logits(clip, prompt)
    torch.testing.assert_close(prompt(images).logits, expected, rtol=1e-4, atol=1e-4)
    folded = prompt.fold()
    for i in range(3):
        vectors = naive.class_vectors(clip, NAMES, ".", [matrix(prompt, f"text.{i}")])
        torch.testing.assert_close(folded.mixture[i], vectors, rtol=1e-4, atol=1e-5)
    assert torch.equal(folded.visual.tokens[0], matrix(prompt, "visual"))
    with pytest.raises(PromptError, match="sites of one domain each"):
        prompt.backward(images, LABELS, None)


def test_other_domains_follow_what_the_server_sends(clip: FrozenClip) -> None:
    prompt = moved(clip, method="adapt", domains=DOMAINS, domain="ink")
    images = encoded(clip, prompt)
    before = prompt(images).logits
    arrays = prompt.arrays()
    arrays |= {"text.2": arrays["text.2"][::-1]}
    prompt.load_arrays(PromptState(arrays))
    torch.testing.assert_close(
        prompt(images).logits, plain_logits(clip, prompt), rtol=1e-4, atol=1e-4
    )
    assert (prompt(images).logits - before).abs().max() > 1e-3


def test_it_starts_at_zero_shot_and_a_site_sends_its_own_domain(clip: FrozenClip) -> None:
    prompt = make(clip, method="adapt", domains=DOMAINS, domain="clay")
    expected = Template(clip, NAMES, TEMPLATE).class_vectors()
    torch.testing.assert_close(prompt.class_vectors(), expected, rtol=1e-4, atol=1e-5)
    assert prompt.arrays().keys() == {"text.0", "text.1", "text.2", "visual"}
    assert prompt.leaving().keys() == {"text.2", "visual"}


def test_half_as_much_at_a_time_gives_the_same(clip: FrozenClip) -> None:
    prompt = moved(clip, method="adapt", domains=DOMAINS, domain="ink")
    images = encoded(clip, prompt)
    prompt.backward(images, LABELS, None)
    wanted = [parameter.grad.clone() for parameter in prompt.parameters()]
    prompt.zero_grad()
    assert prompt.halve_chunk()
    prompt.backward(images, LABELS, None)
    for parameter, gradient in zip(prompt.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_cosines_are_those_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(4, 8)), rng.normal(size=(3, 5, 8))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    t /= np.linalg.norm(t, axis=-1, keepdims=True)
    w = rng.dirichlet(np.ones(3), size=4)
    mixed = np.einsum("bd,dcj->bcj", w, t)
    mixed /= np.linalg.norm(mixed, axis=-1, keepdims=True)
    expected = 20 * np.einsum("bj,bcj->bc", z, mixed)
    found = mixed_logits(*(torch.tensor(a) for a in (z, w, t)), 20.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=EXACT, atol=EXACT)
