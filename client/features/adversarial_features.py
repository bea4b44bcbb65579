"""The features that a site trains on: of its images, or of adversarial images near them.

An attack changes each pixel a little, so that the model sees something else: projected gradient
descent in the largest norm (PGD; Madry et al., arXiv 1706.06083), as AdvPT uses it (arXiv
2311.11261; code): x_0 = x + U(0, 1) eps, x_{t+1} = P(x_t + alpha sign(grad g(x_t))), where P
projects to |x' - x| <= eps and to pixels from 0 to 1, before the tower's normalisation.

AdvPT's adversarial bank is PGD-10 within 8/255 of each training image, without augmentation, built
once and kept in the feature store under a key of its own. It never leaves the site. The attack
starts at noise that the image's hash seeds (ours): every engine builds equal features, and an
image's do not depend on its neighbours.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import canonical_json
from fedprompt.prompts.recipe import Bank
from fedprompt.types import ImageFeatures, Pixels, UnitPixels

Gain = Callable[[UnitPixels], Float[Tensor, " batch"]]  # what the attack makes large, an image each
Encode = Callable[[FrozenClip, Pixels, Sequence[str]], ImageFeatures]  # not normalised
_SEED = 15  # hexadecimal digits of a hash that fit a seed


@dataclass(frozen=True, kw_only=True)
class Attack:
    """State an attack in numbers: radius and step on the scale 0 to 1."""

    radius: float
    step: float
    steps: int


TRAINING = Attack(radius=8 / 255, step=1 / 255, steps=10)  # AdvPT's bank
TEST = Attack(radius=16 / 255, step=0.5 / 255, steps=40)  # AdvPT's evaluation


def pgd(
    clean: UnitPixels, noise: UnitPixels, gain: Gain, *, radius: float, step: float, steps: int
) -> UnitPixels:
    """Return images within ``radius`` of clean ones at which ``gain`` is large.

    Parameters
    ----------
    clean
        The images.
    noise
        Numbers from 0 to 1; the attack starts at ``radius`` times them.
    gain
        A differentiable function, of each image alone.
    radius, step
        Of the attack and of one of its steps, in every pixel.
    steps
        How many.
    """
    found = (clean + radius * noise).clamp(0, 1)
    for _ in range(steps):
        found = found.requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(gain(found).sum(), found)
        shift = (found.detach() + step * slope.sign() - clean).clamp(-radius, radius)
        found = (clean + shift).clamp(0, 1)
    return found.detach()


def embedding_gain(clip: FrozenClip, clean: UnitPixels) -> Gain:
    """Return KL(softmax(z) || softmax(z')) of raw embeddings z = clip(x), z' = clip(x').

    AdvPT's: no label, no prompt, so that an attack on one prompt is an attack on all.
    """
    with torch.no_grad():
        target = clip.encode_image(clip.standardise(clean)).float().log_softmax(-1)

    def gain(pixels: UnitPixels) -> Float[Tensor, " batch"]:
        found = clip.encode_image(clip.standardise(pixels)).float().log_softmax(-1)
        return F.kl_div(found, target, reduction="none", log_target=True).sum(-1)

    return gain


def noise_of(seeds: list[int], size: int) -> UnitPixels:
    """Return U(0, 1) [images 3 size size], drawn on the CPU from one seed an image.

    An image's noise does not depend on its neighbours in a batch.
    """
    generator = torch.Generator()
    drawn = [torch.rand(3, size, size, generator=generator.manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn)


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
