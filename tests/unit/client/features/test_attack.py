import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.features.adversarial_features import embedding_gain, noise_of, pgd
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.experiments.robustness import encode_pixels, logit_gain
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import METHODS, UNTRAINED, prompt_config
from fedprompt.prompts.template import Template
from tests.unit.fedprompt.prompts.hosts import NAMES, TEMPLATE, moved

PIXELS = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 2, 3, 4])


def softmax(rows: np.ndarray) -> np.ndarray:
    weights = np.exp(rows - rows.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_it_climbs_by_signs_and_stays_in_the_ball_and_the_range() -> None:
    """g(x) = sum (x - t)^2 has the gradient 2 (x - t): numpy can follow every step."""
    rng = np.random.default_rng(0)
    clean, noise, target = (rng.random((2, 3, 4, 4)).astype(np.float32) for _ in range(3))
    clean[0, 0, 0, :2] = 0.0, 1.0
    radius, step, steps = 0.05, 0.02, 6
    found = pgd(
        torch.from_numpy(clean),
        torch.from_numpy(noise),
        lambda x: ((x - torch.from_numpy(target)) ** 2).flatten(1).sum(1),
        radius=radius,
        step=step,
        steps=steps,
    ).numpy()
    here = (clean + radius * noise).clip(0, 1)
    for _ in range(steps):
        here = here + step * np.sign(2 * (here - target))
        here = np.clip(here, clean - radius, clean + radius).clip(0, 1)
    np.testing.assert_allclose(found, here, atol=1e-6)
    assert np.abs(found - clean).max() <= radius + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_without_a_step_it_is_the_noise_within_the_ball() -> None:
    clean, noise = torch.full((1, 3, 2, 2), 0.5), torch.full((1, 3, 2, 2), 0.25)
    found = pgd(clean, noise, lambda x: x.flatten(1).sum(1), radius=0.2, step=0.1, steps=0)
    torch.testing.assert_close(found, torch.full((1, 3, 2, 2), 0.55))


def test_the_embedding_gain_is_the_divergence_of_softmaxes(clip: FrozenClip) -> None:
    other = (PIXELS + 0.1).clamp(0, 1)
    with torch.no_grad():
        found = embedding_gain(clip, PIXELS)(other).numpy()
        mean, std = (
            torch.tensor(v)[:, None, None]
            for v in (clip.preprocessing.mean, clip.preprocessing.std)
        )
        before, after = (
            softmax(clip.model.encode_image((x - mean) / std).double().numpy())
            for x in (PIXELS, other)
        )
    expected = (before * np.log(before / after)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "coop"},
        {"method": "vpt", "first_layer": 1},
        {"method": "ivlp", "form": "lowrank"},
    ],
)
def test_the_logit_gain_is_the_cross_entropy_of_the_tuned_prompt(
    clip: FrozenClip, settings: dict
) -> None:
    prompt = moved(clip, **settings)
    bytes_ = (255 * PIXELS).to(torch.uint8)
    clean = bytes_.float() / 255
    with torch.no_grad():
        images = clip.normalise(bytes_.permute(0, 2, 3, 1))
        folded = prompt.fold()
        features = F.normalize(clip.encode_image(images, folded.visual), dim=-1)
        logits = clip.logit_scale * features @ folded.class_vectors.T
        expected = -logits.log_softmax(-1)[torch.arange(5), LABELS]
        found = logit_gain(prompt, clip, LABELS)(clean)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [None, {"method": "coop"}, {"method": "vpt", "tokens": 2}])
def test_gradients_reach_the_pixels(clip: FrozenClip, settings: dict | None) -> None:
    """Compare with differences: a step along the gradient changes the gain as it says."""
    prompt = moved(clip, **settings) if settings else Template(clip, NAMES, TEMPLATE)
    gain = logit_gain(prompt, clip, LABELS)
    pixels = PIXELS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gain(pixels).sum(), pixels)
    along = slope / slope.norm()
    with torch.no_grad():
        change = (gain(PIXELS + 1e-2 * along) - gain(PIXELS - 1e-2 * along)).sum() / 2e-2
    assert float(change) == pytest.approx(float(slope.norm()), rel=0.05)


@pytest.mark.parametrize("method", [*METHODS, *UNTRAINED])
def test_an_attack_may_know_any_method(clip: FrozenClip, method: str) -> None:
    """What it climbs is the cross-entropy of what the prompt predicts, and it can climb."""
    domains = {"domains": "ink, clay"} if method == "adapt" else {}
    settings = prompt_config(method=method, dropout=0.0, **domains)
    prompt = build_prompt(settings, clip, NAMES, TEMPLATE, any_start=True)
    with torch.no_grad():
        encoded = encode_pixels(PIXELS, clip, prompt.first_layer)
        images = EncodedImages(encoded.features, encoded.rows)
        expected = F.cross_entropy(prompt.predict(images), LABELS, reduction="none")
    gain, pixels = logit_gain(prompt, clip, LABELS), PIXELS.clone().requires_grad_()
    found = gain(pixels)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-3, atol=1e-3)
    (slope,) = torch.autograd.grad(found.sum(), pixels)
    assert float(slope.abs().sum()) > 0


def test_noise_depends_on_its_own_seed_alone() -> None:
    together, alone = noise_of([7, 8, 9], 4), noise_of([8], 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert 0 <= float(together.min()) <= float(together.max()) < 1


def test_what_is_encoded_is_what_a_site_keeps(clip: FrozenClip) -> None:
    pixels = (255 * PIXELS).to(torch.uint8)
    images = clip.normalise(pixels.permute(0, 2, 3, 1))
    found = encode_pixels(pixels.float() / 255, clip, 1)
    expected = F.normalize(clip.encode_image(images), dim=-1)
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-5)
    rows = clip.image.activations(images, 1)
    torch.testing.assert_close(found.rows, rows, rtol=1e-4, atol=1e-5)
    assert encode_pixels(pixels.float() / 255, clip, None).rows is None
