import numpy as np
import pytest
import torch

from client.features.adversarial_features import TEST, Attack
from client.features.encode import encode
from client.tuning.evaluate import predict
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.errors import ConfigError, DataError
from fedprompt.experiments import robustness
from fedprompt.experiments.corruption import CORRUPTIONS, corrupt
from fedprompt.experiments.robustness import (
    Sweep,
    adversarial_accuracy,
    corrupted_accuracy,
    perturbed,
)
from fedprompt.prompts.build import Prompt
from tests.unit.client.features.test_encode import Memory, ppm
from tests.unit.fedprompt.prompts.hosts import NAMES, moved

NOTHING = Attack(radius=0.0, step=0.0, steps=1)
SHORT = Attack(radius=8 / 255, step=2 / 255, steps=8)


@pytest.fixture(scope="module", params=["coop", "vpt"])
def prompt(clip: FrozenClip, request: pytest.FixtureRequest) -> Prompt:
    return moved(clip, method=request.param)


@pytest.fixture(scope="module")
def pictures(clip: FrozenClip, prompt: Prompt) -> ImageSet:
    """Return images labelled as the prompt sees them: clean, all are right."""
    source = Memory([ppm(seed, (32, 32)) for seed in range(12)])
    bare = image_set(NAMES, [0] * 12, source)
    seen = predict(prompt, encode(bare, clip, None, 4, prompt.first_layer)).argmax(-1)
    return image_set(NAMES, seen.numpy(), source)


def test_images_that_nobody_touched_are_scored_as_always(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet
) -> None:
    expected = predict(prompt, encode(pictures, clip, None, 4, prompt.first_layer))
    logits, labels = perturbed(
        prompt, clip, pictures, lambda p, *_: p.permute(0, 3, 1, 2) / 255, Sweep(batch=5)
    )
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert labels.tolist() == pictures.labels.tolist()
    assert adversarial_accuracy(prompt, clip, pictures, NOTHING) == 1.0


def test_an_attack_that_knows_the_prompt_finds_what_clip_alone_does_not(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet
) -> None:
    blind = adversarial_accuracy(prompt, clip, pictures, SHORT)
    adaptive = adversarial_accuracy(prompt, clip, pictures, SHORT, adaptive=True)
    assert adaptive < 1.0
    assert adaptive <= blind


def test_equal_seeds_give_equal_figures_whatever_the_batch(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    original = robustness.noise_of
    monkeypatch.setattr(
        robustness, "noise_of", lambda seeds, size: starts.extend(seeds) or original(seeds, size)
    )
    for batch, seed in ((12, 1), (5, 1), (5, 2)):
        adversarial_accuracy(prompt, clip, pictures, NOTHING, Sweep(batch=batch, seed=seed))
    assert starts[:12] == starts[12:24] != starts[24:]
    assert len(set(starts)) == 24


def test_a_limit_keeps_the_classes_in_share(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = robustness.read_pixels
    monkeypatch.setattr(
        robustness,
        "read_pixels",
        lambda s, part, *rest: seen.extend(part) or original(s, part, *rest),
    )
    assert adversarial_accuracy(prompt, clip, pictures, NOTHING, Sweep(limit=5)) == 1.0
    assert len(seen) == 5


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corrupted_images_are_scored(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet, kind: str
) -> None:
    found = [corrupted_accuracy(prompt, clip, pictures, kind, s, Sweep(batch=5)) for s in (1, 5)]
    assert all(0 <= accuracy <= 1 for accuracy in found)
    again = corrupted_accuracy(prompt, clip, pictures, kind, 5, Sweep(batch=12))
    assert again == found[1]


def test_what_is_scored_are_the_corrupted_pixels(
    clip: FrozenClip, prompt: Prompt, pictures: ImageSet
) -> None:
    """Label each picture as its perturbed copy is seen: then all are right, and clean ones not."""
    spoilt_by_hand = [
        corrupt(decode(pictures.content(i)), "contrast", 5, np.random.default_rng(0))
        for i in range(len(pictures))
    ]
    source = Memory([b"P6 32 32 255\n" + image.tobytes() for image in spoilt_by_hand])
    bare = image_set(NAMES, [0] * 12, source)
    seen = predict(prompt, encode(bare, clip, None, 4, prompt.first_layer)).argmax(-1)
    relabelled = image_set(NAMES, seen.numpy(), pictures.source)
    assert corrupted_accuracy(prompt, clip, relabelled, "contrast", 5) == 1.0
    if prompt.describe()["method"] == "coop":
        assert adversarial_accuracy(prompt, clip, relabelled, NOTHING) < 1.0


def test_wrong_questions_are_refused(clip: FrozenClip, prompt: Prompt, pictures: ImageSet) -> None:
    with pytest.raises(DataError, match="no images to score"):
        adversarial_accuracy(prompt, clip, pictures.subset([]), TEST)
    with pytest.raises(ConfigError, match="corruption 'fog'"):
        corrupted_accuracy(prompt, clip, pictures, "fog", 1)


def test_the_published_attack() -> None:
    assert (TEST.radius, TEST.step, TEST.steps) == (16 / 255, 0.5 / 255, 40)
