"""What a site trains on of each image: its features, or those an attack left of it.

AdvPT's adversarial bank (arXiv 2311.11261): PGD-10 within 8/255 of each training image, without
augmentation, built once and kept in the feature store under a key of its own. It never leaves the
site. The attack starts at noise that the image's hash seeds (ours): every engine builds equal
features, and an image's do not depend on its neighbours.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from client.features.attack import TRAINING, embedding_gain, noise_of, pgd
from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import canonical_json
from fedprompt.prompts.recipe import Bank
from fedprompt.types import ImageFeatures, Pixels

Encode = Callable[[FrozenClip, Pixels, Sequence[str]], ImageFeatures]  # not normalised
_SEED = 15  # hexadecimal digits of a hash that fit a seed


@torch.no_grad()
def clean(clip: FrozenClip, pixels: Pixels, digests: Sequence[str]) -> ImageFeatures:  # noqa: ARG001
    """Return the features of images as they are."""
    return clip.encode_image(clip.normalise(pixels))


def adversarial(clip: FrozenClip, pixels: Pixels, digests: Sequence[str]) -> ImageFeatures:
    """Return the features of attacked images; ``digests`` are their hashes."""
    images = pixels.to(clip.device).permute(0, 3, 1, 2).float() / 255
    seeds = [int(digest[:_SEED], 16) for digest in digests]
    noise = noise_of(seeds, images.shape[-1]).to(clip.device)
    attacked = pgd(images, noise, embedding_gain(clip, images), **asdict(TRAINING))
    with torch.no_grad():
        return clip.encode_image(clip.standardise(attacked))


ENCODERS: dict[Bank, Encode] = {"clean": clean, "adversarial": adversarial}


def key_of(bank: Bank) -> bytes:
    """Return what a bank adds to the key of its features; nothing for clean ones."""
    if bank == "clean":
        return b""
    return canonical_json([bank, "embedding", asdict(TRAINING)])
