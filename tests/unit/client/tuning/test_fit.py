import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.features.encode import image_features
from client.tuning.fit import Proximal, ScheduleWindow, fit, learning_rate
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.backbone.fingerprint import model_fingerprint
from fedprompt.data.decode import decode
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import PromptError
from fedprompt.identity import sha256_arrays
from fedprompt.prompts import prompted
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.prompted import PromptedClip as Prompt
from fedprompt.settings.fit import FitConfig
from tests.prompts import stir

NAMES = ("great grey owl", "great white shark", "tench", "sea", "maple tree")
TEMPLATE = "a photo of a {}."
SCALE = 20.0


class Memory:
    def content(self, index: int) -> bytes:
        pixels = np.random.default_rng(index).integers(0, 256, (36, 32, 3), dtype=np.uint8)
        return b"P6 32 36 255\n" + pixels.tobytes()

    def name(self, index: int) -> str:
        return str(index)


IMAGES: ImageSet = image_set(NAMES, [i % 5 for i in range(22)], Memory())
LABELS = torch.from_numpy(IMAGES.labels)


def make(clip: FrozenClip, **config: object) -> Prompt:
    prompt = build_prompt(prompt_config(**config), clip, NAMES, TEMPLATE)
    prompt.scale = SCALE
    return prompt


@pytest.fixture(scope="module")
def images(clip: FrozenClip) -> EncodedImages:
    return EncodedImages(image_features(IMAGES, clip, None, 8))


def settings(**changes: object) -> FitConfig:
    return FitConfig(**{"epochs": 2, "batch": 8, "learning_rate": 0.02, **changes})


def cross_entropy(features: torch.Tensor, prompt: Prompt, labels: torch.Tensor) -> float:
    return float(F.cross_entropy(SCALE * features @ prompt.fold().class_vectors.T, labels))


def digest(prompt: Prompt) -> str:
    return sha256_arrays(prompt.arrays())


def reference_fit(
    clip: FrozenClip,
    prompt: Prompt,
    config: FitConfig,
    seed: int,
    window: ScheduleWindow,
    mu: float,
) -> float:
    """Tune as CoOp's code does: every image and all 77 tokens of every class, in every step.

    Written from open_clip, the papers' equations and torch alone; prompt's forms and encoders are
    not called.
    """
    model, form = clip.model, prompt.host.ctx
    ids = clip.tokenizer([f"X X X X {name}." for name in NAMES])
    embedded = model.token_embedding(ids)
    trained = list(prompt.parameters())
    anchors = [tensor.detach().clone() for tensor in trained]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.SGD
    extra = {} if config.optimiser == "adamw" else {"momentum": config.momentum}
    optimiser = kind(trained, lr=1.0, weight_decay=config.weight_decay, **extra)
    draws = torch.Generator().manual_seed(seed)
    order = [torch.randperm(len(LABELS), generator=draws) for _ in range(config.epochs)]
    steps = [part for epoch in order for part in epoch.split(config.batch)]
    losses = []
    for number, chosen in enumerate(steps):
        done = window.start + (window.end - window.start) * number / len(steps)
        optimiser.param_groups[0]["lr"] = learning_rate(config, done)
        update = form.A @ form.B
        if form.dropout:
            kept = torch.rand(4, 32, generator=draws) >= form.dropout
            update = torch.where(kept, update / (1 - form.dropout), 0.0)
        context = (form.start + update).expand(len(NAMES), 4, 32)
        rows = torch.cat([embedded[:, :1], context, embedded[:, 5:]], 1)
        rows = model.transformer(rows + model.positional_embedding, attn_mask=model.attn_mask)
        last = model.ln_final(rows)[torch.arange(len(NAMES)), ids.argmax(-1)]
        vectors = F.normalize(last @ model.text_projection, dim=-1)
        pixels = np.stack(
            [fit_to_input(decode(IMAGES.content(int(i))), clip.preprocessing) for i in chosen]
        )
        images = model.encode_image(clip.normalise(torch.from_numpy(pixels)), normalize=True)
        loss = F.cross_entropy(SCALE * images @ vectors.T, LABELS[chosen])
        losses += [float(loss.detach())] * len(chosen)
        near = sum(((new - old) ** 2).sum() for new, old in zip(trained, anchors, strict=True))
        optimiser.zero_grad()
        (loss + mu / 2 * near).backward()
        optimiser.step()
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("config", "prompt", "mu"),
    [
        ({"optimiser": "sgd", "learning_rate": 0.5}, {"dropout": 0.0}, 0.0),
        ({"optimiser": "sgd", "learning_rate": 0.5, "weight_decay": 0.1}, {"dropout": 0.3}, 0.0),
        ({"optimiser": "sgd", "schedule": "constant", "warmup": 0.0}, {"rank": 3}, 5.0),
        ({"weight_decay": 0.1}, {"dropout": 0.0}, 0.0),
        ({}, {"rank": 2, "dropout": 0.5}, 5.0),
    ],
)
def test_all_speed_ups_together_equal_the_reference_step(
    clip: FrozenClip, images: EncodedImages, config: dict, prompt: dict, mu: float
) -> None:
    window, chosen = ScheduleWindow(start=0.2, end=0.6), settings(**config)
    fast, plain = make(clip, **prompt), make(clip, **prompt)
    start = plain.host.ctx.B.detach().clone()
    found = fit(fast, images, LABELS, chosen, 3, window=window, mu=mu)
    expected = reference_fit(clip, plain, chosen, 3, window, mu)
    assert found == pytest.approx(expected, rel=1e-5)
    moved = (plain.host.ctx.B - start).norm()
    assert moved > 1e-4
    # AdamW divides by the gradient's own size, which lifts the rounding of small entries
    bound = 1e-5 if chosen.optimiser == "sgd" else 1e-3
    assert (fast.host.ctx.B - plain.host.ctx.B).norm() <= bound * moved
    assert (fast.host.ctx.A - plain.host.ctx.A).norm() <= bound * plain.host.ctx.A.norm()


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["dip", "coop"])
def test_equal_seeds_give_equal_bytes(
    clip: FrozenClip, images: EncodedImages, optimiser: str, method: str
) -> None:
    def run(seed: int, noise: int) -> tuple[str, float]:
        torch.manual_seed(noise)
        prompt = make(clip, method=method, dropout=0.5)
        loss = fit(prompt, images, LABELS, settings(optimiser=optimiser), seed)
        return digest(prompt), loss

    assert run(1, 1) == run(1, 2)
    assert run(1, 1) != run(2, 1)


def test_the_backbone_keeps_every_byte(clip: FrozenClip, images: EncodedImages) -> None:
    before, seen = model_fingerprint(clip.model), images.features.clone()
    prompt = make(clip)
    start = digest(prompt)
    fit(prompt, images, LABELS, settings(), 0)
    assert model_fingerprint(clip.model) == before == clip.fingerprint
    assert torch.equal(images.features, seen)
    assert all(parameter.grad is None for parameter in clip.parameters())
    assert digest(prompt) != start
    frozen = prompt.frozen_arrays()["ctx.start"]
    assert np.array_equal(frozen, make(clip).frozen_arrays()["ctx.start"])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["dip", "coop"])
def test_the_loss_falls_where_it_can(clip: FrozenClip, optimiser: str, method: str) -> None:
    """The images are the class vectors of another prompt: a perfect prompt exists."""
    target = make(clip, method=method, seed=5)
    stir(target, spread=1.0)
    features, labels = target.fold().class_vectors.repeat(4, 1), torch.arange(5).repeat(4)
    prompt = make(clip, method=method)
    before = cross_entropy(features, prompt, labels)
    config = settings(optimiser=optimiser, learning_rate=0.1, epochs=8, warmup=0.0)
    losses = [fit(prompt, EncodedImages(features), labels, config, s) for s in range(2)]
    after = cross_entropy(features, prompt, labels)
    assert after < losses[1] < losses[0] < before
    assert after < 0.7 * before


def test_fedprox_pulls_towards_the_start(clip: FrozenClip, images: EncodedImages) -> None:
    def distance(mu: float) -> float:
        prompt = make(clip, method="coop")
        start = prompt.host.ctx.fold()
        config = settings(optimiser="sgd", learning_rate=0.05, epochs=4, momentum=0.0)
        fit(prompt, images, LABELS, config, 0, mu=mu)
        return float((prompt.host.ctx.fold() - start).norm())

    found = [distance(mu) for mu in (0.0, 1.0, 10.0)]
    assert found[0] > found[1] > found[2] > 0


def test_do_and_pp_act_in_training(clip: FrozenClip, images: EncodedImages) -> None:
    def density(**config: float) -> float:
        prompt = make(clip, rank=2, dropout=0.0, **config)
        fit(prompt, images, LABELS, settings(epochs=5), 0)
        return prompt.information_density()

    plain = density()
    assert density(density_weight=20.0) > plain + 1e-4
    assert density(tail_weight=20.0) > plain + 1e-4


def test_the_reported_loss_is_cross_entropy_alone(clip: FrozenClip, images: EncodedImages) -> None:
    """Mean over images, not over batches: the last batch is short. Nothing moves at rate 1e-12."""
    prompt = make(clip, dropout=0.0, density_weight=3.0)
    config = settings(learning_rate=1e-12, batch=8)
    found = fit(prompt, images, LABELS, config, 0, mu=9.0)
    expected = cross_entropy(images.features, prompt, LABELS)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_window_places_a_call_in_the_whole_run(
    clip: FrozenClip, images: EncodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(
        "client.tuning.fit.learning_rate", lambda _config, at: seen.append(at) or 1e-3
    )
    window = ScheduleWindow(start=0.5, end=0.75)
    fit(make(clip), images, LABELS, settings(batch=11), 0, window=window)
    assert seen == [0.5, 0.5625, 0.625, 0.6875]
    seen.clear()
    fit(make(clip), images, LABELS, settings(batch=11, epochs=1), 0)
    assert seen == [0.0, 0.5]


def test_the_schedules_rate_is_the_one_that_is_used(
    clip: FrozenClip, images: EncodedImages
) -> None:
    """At the end of the run the rate is zero: nothing moves."""
    prompt = make(clip)
    start = digest(prompt)
    window = ScheduleWindow(start=1.0, end=1.0)
    fit(prompt, images, LABELS, settings(optimiser="sgd"), 0, window=window)
    assert digest(prompt) == start


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_what_is_not_finite_is_refused_clearly(
    clip: FrozenClip, images: EncodedImages, optimiser: str
) -> None:
    broken = images.features.clone()
    broken[3, 0] = float("nan")
    with pytest.raises(PromptError, match=r"no longer finite after 6 steps; lower fit.learning"):
        fit(make(clip), EncodedImages(broken), LABELS, settings(optimiser=optimiser), 0)


def test_a_rate_far_too_high_is_refused_clearly(clip: FrozenClip, images: EncodedImages) -> None:
    config = settings(optimiser="sgd", learning_rate=1e38, epochs=5)
    with pytest.raises(PromptError, match=r"lower fit.learning_rate"):
        fit(make(clip), images, LABELS, config, 0)


def test_a_method_that_trains_nothing_is_refused(clip: FrozenClip, images: EncodedImages) -> None:
    with pytest.raises(PromptError, match="trains nothing; use `fedprompt eval`"):
        fit(make(clip, method="template"), images, LABELS, settings(), 0)


def test_no_images_are_refused(clip: FrozenClip, images: EncodedImages) -> None:
    with pytest.raises(PromptError, match="no images"):
        fit(make(clip), EncodedImages(images.features[:0]), LABELS[:0], settings(), 0)


def test_logits_are_exact_where_the_tower_is_not(
    clip: FrozenClip, images: EncodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under bf16 autocast (speed-up 6) the tower alone computes in bf16."""
    prompt = make(clip, dropout=0.0)
    prompt.scale = 100.0
    vectors = prompt.class_vectors().detach().to(torch.bfloat16)
    fixed = lambda _: vectors + 0 * prompt.host.ctx().sum()  # noqa: E731
    monkeypatch.setattr(prompt, "_vectors", fixed)
    half = lambda _: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    monkeypatch.setattr(prompted, "tower_precision", half)
    found = fit(prompt, images, LABELS, settings(epochs=1, batch=22), 0)
    logits = 100.0 * images.features @ vectors.float().T
    assert found == pytest.approx(float(F.cross_entropy(logits, LABELS)), rel=1e-6)


def test_a_prompt_that_no_server_takes_is_refused(clip: FrozenClip, images: EncodedImages) -> None:
    config = settings(learning_rate=1e6, epochs=1)
    labels = torch.zeros(len(images), dtype=torch.long)
    with pytest.raises(PromptError, match=r"diverges: its largest number is .*lower fit.learning"):
        fit(make(clip), images, labels, config, seed=0)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.01),  # never quite zero, or the first step would be lost
        (0.001, 0.01),
        (0.05, 0.5),
        (0.1, 1.0),
        (0.325, 0.5 * (1 + math.cos(math.pi / 4))),
        (0.55, 0.5),
        (0.775, 0.5 * (1 + math.cos(math.pi * 3 / 4))),
        (1.0, 0.0),
        (1.5, 0.0),  # a resumed run may be longer than was planned
    ],
)
def test_cosine_with_warm_up(progress: float, expected: float) -> None:
    config = FitConfig(learning_rate=4e-3, warmup=0.1)
    assert learning_rate(config, progress) == pytest.approx(4e-3 * expected, rel=1e-9, abs=1e-12)


def test_constant_after_the_warm_up() -> None:
    config = FitConfig(learning_rate=1.0, warmup=0.5, schedule="constant")
    assert [learning_rate(config, p) for p in (0.25, 0.5, 0.9, 1.0)] == [0.5, 1.0, 1.0, 1.0]


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert learning_rate(FitConfig(learning_rate=1.0, warmup=0), 0.0) == 1.0


def test_it_rises_then_falls() -> None:
    found = [learning_rate(FitConfig(warmup=0.2), step / 100) for step in range(101)]
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert max(found) == FitConfig().learning_rate


def tensors() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((4, 1), (1, 32))]


def test_it_is_half_the_squared_distance_from_where_the_tensors_were() -> None:
    tied = tensors()
    start = [tensor.detach().numpy().copy() for tensor in tied]
    proximal = Proximal(tied, 3.0)
    assert float(proximal.penalty().detach()) == 0.0
    with torch.no_grad():
        for tensor in tied:
            tensor.mul_(1.5)
    distance = sum(float((0.25 * array.astype(float) ** 2).sum()) for array in start)
    assert float(proximal.penalty().detach()) == pytest.approx(1.5 * distance, rel=1e-6)
    proximal.penalty().backward()
    for tensor, array in zip(tied, start, strict=True):  # the gradient is mu (now - start)
        np.testing.assert_allclose(tensor.grad, 3.0 * 0.5 * array, rtol=1e-5)


def test_no_weight_leaves_no_gradient() -> None:
    proximal = Proximal(tied := tensors(), 0.0)
    with torch.no_grad():
        tied[0].add_(1)
    assert float(proximal.penalty().detach()) == 0.0
    assert not proximal.penalty().requires_grad
