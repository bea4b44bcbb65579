import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.features import adversarial_features as bank
from client.features.adversarial_features import embedding_gain, noise_of, pgd
from client.features.encode import encode, image_features, store_key
from client.features.feature_store import FeatureStore
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from fedprompt.experiments.robustness import encode_pixels, logit_gain
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import METHODS, UNTRAINED, prompt_config
from fedprompt.prompts.template import Template
from tests.unit.client.features.test_encode import images, ppm
from tests.unit.fedprompt.prompts.hosts import NAMES, TEMPLATE, moved


def by_hand(clip: FrozenClip, seed: int) -> torch.Tensor:
    """Return the feature of one attacked image, AdvPT's loop written out."""
    content = ppm(seed)
    pixels = torch.from_numpy(fit_to_input(decode(content), clip.preprocessing))
    clean = (pixels.permute(2, 0, 1).float() / 255).unsqueeze(0)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (clip.preprocessing.mean, clip.preprocessing.std)
    )
    before = F.softmax(clip.model.encode_image((clean - mean) / std), -1)
    digest = images(seed).digest(0)
    generator = torch.Generator().manual_seed(int(digest[:15], 16))
    delta = torch.rand(3, 32, 32, generator=generator).unsqueeze(0) * 8 / 255
    delta = (clean + delta).clamp(0, 1) - clean
    for _ in range(10):
        delta.requires_grad_()
        after = F.log_softmax(clip.model.encode_image((clean + delta - mean) / std), -1)
        loss = F.kl_div(after, before, reduction="batchmean")
        (slope,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + slope.sign() / 255).clamp(-8 / 255, 8 / 255)
        delta = (clean + delta).clamp(0, 1) - clean
    with torch.no_grad():
        return clip.model.encode_image((clean + delta - mean) / std, normalize=True)[0]


def test_the_bank_holds_the_features_of_attacked_images(clip: FrozenClip) -> None:
    """The signs of small slopes may round otherwise, so cosines are compared, and the gain."""
    clean = image_features(images(1, 2, 3), clip, None, 2)
    found = image_features(images(1, 2, 3), clip, None, 2, bank="adversarial")
    for row, seed in zip(found, (1, 2, 3), strict=True):
        assert float(row @ by_hand(clip, seed)) > 0.999
    assert float((clean * found).sum(-1).max()) < 0.98  # and clean ones are elsewhere
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))


def test_an_attack_does_not_depend_on_neighbours(clip: FrozenClip) -> None:
    together = image_features(images(*range(5)), clip, None, 4, bank="adversarial")
    for seed in (0, 4):
        alone = image_features(images(seed), clip, None, 4, bank="adversarial")
        assert torch.equal(alone[0], together[seed])


def test_a_bank_is_built_once_and_kept_apart(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = []
    original = bank.pgd

    def counted(clean: torch.Tensor, *rest: object, **numbers: float) -> torch.Tensor:
        attacks.append(len(clean))
        return original(clean, *rest, **numbers)

    monkeypatch.setattr(bank, "pgd", counted)
    key = store_key(clip, "adversarial")
    assert key != store_key(clip) == store_key(clip, "clean")
    plain = image_features(images(1, 2), clip, FeatureStore(store_key(clip)), 2)
    assert not attacks
    first = encode(images(1, 2), clip, FeatureStore(key), 2, None, bank="adversarial")
    assert attacks == [2]
    again = encode(images(2, 1), clip, FeatureStore(key), 2, None, bank="adversarial")
    assert attacks == [2]
    assert torch.equal(again.features, first.features[[1, 0]])
    assert torch.equal(image_features(images(1, 2), clip, FeatureStore(store_key(clip)), 2), plain)


def test_another_attack_has_another_key(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store_key(clip, "adversarial")
    monkeypatch.setattr(
        bank, "TRAINING", bank.TRAINING.__class__(radius=4 / 255, step=1 / 255, steps=10)
    )
    assert store_key(clip, "adversarial") != key


def test_a_prompt_of_the_image_tower_gets_no_clean_rows(clip: FrozenClip) -> None:
    found = encode(images(1, 2), clip, None, 2, 0, bank="adversarial")
    assert found.rows is None
    assert np.isfinite(found.features.numpy()).all()


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
