"""Score a prompt on attacked and on corrupted images.

    adversarial_accuracy(prompt, clip, test, TEST)                   # knows CLIP, not the prompt
    adversarial_accuracy(prompt, clip, test, TEST, adaptive=True)    # knows the prompt as well
    corrupted_accuracy(prompt, clip, test, "jpeg", 3)

Nothing is stored. Every image draws from a seed of its own, so a result does not depend on the size
of a batch but for rounding.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from client.features.adversarial_features import Attack, Gain, embedding_gain, noise_of, pgd
from client.features.encode import read_pixels
from client.features.oom_retry import halved
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.data.decode import MAX_PIXELS
from fedprompt.data.image_set import ImageSet
from fedprompt.data.shots import stratified
from fedprompt.errors import DataError
from fedprompt.experiments.corruption import corrupt
from fedprompt.experiments.evaluation import metrics
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompts.build import Prompt
from fedprompt.types import Labels, Logits, Pixels, UnitPixels

Perturb = Callable[[Pixels, Labels, list[int]], UnitPixels]  # one seed an image


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which images are scored, and how many at a time."""

    limit: int = 0  # images at most, classes kept in share; 0 = all
    batch: int = 64  # images; halved where a GPU's memory does not suffice
    seed: int = 0  # of the choice of images, and of each one's attack or corruption
    max_pixels: int = MAX_PIXELS  # of one image, as the data were checked


ALL = Sweep()


def adversarial_accuracy(
    prompt: Prompt,
    clip: FrozenClip,
    images: ImageSet,
    attack: Attack,
    sweep: Sweep = ALL,
    *,
    adaptive: bool = False,
) -> float:
    """Return the share of attacked images that a prompt still gets right.

    Parameters
    ----------
    prompt
        Any method.
    clip
        The frozen CLIP.
    images
        With their labels, clean.
    attack
        Radius, step and steps; ``TEST`` is AdvPT's.
    adaptive
        Attack the prompt's own logits by cross-entropy; else CLIP's raw embeddings, as AdvPT does:
        a prompt that holds against that alone may still be no defence.

    Raises
    ------
    DataError
        There are no images.
    """

    def perturb(pixels: Pixels, labels: Labels, seeds: list[int]) -> UnitPixels:
        clean = _scaled(pixels, clip)
        gain = logit_gain(prompt, clip, labels) if adaptive else embedding_gain(clip, clean)
        return pgd(clean, noise_of(seeds, clean.shape[-1]).to(clean), gain, **asdict(attack))

    return metrics(*perturbed(prompt, clip, images, perturb, sweep))["accuracy"]


def corrupted_accuracy(
    prompt: Prompt,
    clip: FrozenClip,
    images: ImageSet,
    kind: str,
    strength: int,
    sweep: Sweep = ALL,
) -> float:
    """Return the share of corrupted images that a prompt gets right.

    Images are corrupted at the size that the tower takes, as ImageNet-C's are. ``kind`` and
    ``strength`` are those of `corrupt`, the rest as in `adversarial_accuracy`.
    """

    def perturb(pixels: Pixels, _: Labels, seeds: list[int]) -> UnitPixels:
        pairs = zip(pixels.cpu().numpy(), seeds, strict=True)
        found = [corrupt(image, kind, strength, np.random.default_rng(s)) for image, s in pairs]
        return _scaled(torch.from_numpy(np.stack(found)), clip)

    return metrics(*perturbed(prompt, clip, images, perturb, sweep))["accuracy"]


def perturbed(
    prompt: Prompt, clip: FrozenClip, images: ImageSet, perturb: Perturb, sweep: Sweep
) -> tuple[Logits, Labels]:
    """Return a prompt's logits on perturbed images, and their labels.

    Raises
    ------
    DataError
        There are no images.
    """
    images = _some(images, sweep)
    if not len(images):
        raise DataError("there are no images to score; check data.source and data.test_limit")
    labels = torch.from_numpy(images.labels).to(clip.device)
    seeds = [_seed(sweep.seed, images.digest(index)) for index in range(len(images))]

    def scored(start: int, end: int) -> Logits:
        part = range(start, min(end, len(images)))
        pixels = read_pixels(images, part, clip.preprocessing, sweep.max_pixels)
        found = perturb(pixels, labels[part.start : part.stop], seeds[part.start : part.stop])
        with torch.no_grad():
            logits: Logits = prompt(encode_pixels(found, clip, prompt.first_layer)).logits
        return logits

    def all_at(size: int) -> Logits:
        return torch.cat([scored(start, start + size) for start in range(0, len(images), size)])

    return halved(all_at, sweep.batch), labels


def logit_gain(prompt: Prompt, clip: FrozenClip, labels: Labels) -> Gain:
    """Return the cross-entropy of a prompt's own logits: an attack that knows the prompt."""

    def gain(pixels: UnitPixels) -> Float[Tensor, " batch"]:
        logits = prompt(encode_pixels(pixels, clip, prompt.first_layer)).logits
        return F.cross_entropy(logits, labels, reduction="none")

    return gain


def encode_pixels(pixels: UnitPixels, clip: FrozenClip, first_layer: int | None) -> Encoded:
    """Return what a prompt that enters at ``first_layer`` needs of images; gradients flow."""
    images = clip.standardise(pixels)
    features = F.normalize(clip.encode_image(images).float(), dim=-1)
    rows = None if first_layer is None else clip.image.activations(images, first_layer)
    return Encoded(features, rows)


def _some(images: ImageSet, sweep: Sweep) -> ImageSet:
    if not sweep.limit:
        return images
    return images.subset(stratified(images.labels, sweep.limit, sweep.seed))


def _scaled(pixels: Pixels, clip: FrozenClip) -> UnitPixels:
    return pixels.to(clip.device).permute(0, 3, 1, 2).float() / 255


def _seed(seed: int, digest: str) -> int:
    return int(sha256_bytes(canonical_json([seed, digest]))[:15], 16)
