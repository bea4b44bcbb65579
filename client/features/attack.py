"""Attack images: change each pixel a little, so that the model sees something else.

Projected gradient descent in the largest norm (Madry et al., arXiv 1706.06083), as AdvPT uses it
(arXiv 2311.11261; code): x_0 = x + U(0, 1) eps, x_{t+1} = P(x_t + alpha sign(grad g(x_t))), where P
projects to |x' - x| <= eps and to pixels from 0 to 1, before the tower's normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.build import Prompt
from fedprompt.types import Labels, UnitPixels

Gain = Callable[[UnitPixels], Float[Tensor, " batch"]]  # what the attack makes large, an image each


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


def logit_gain(prompt: Prompt, clip: FrozenClip, labels: Labels) -> Gain:
    """Return the cross-entropy of a prompt's own logits: an attack that knows the prompt."""

    def gain(pixels: UnitPixels) -> Float[Tensor, " batch"]:
        logits = prompt(encode(pixels, clip, prompt.first_layer)).logits
        return F.cross_entropy(logits, labels, reduction="none")

    return gain


def encode(pixels: UnitPixels, clip: FrozenClip, first_layer: int | None) -> Encoded:
    """Return what a prompt that enters at ``first_layer`` needs of images; gradients flow."""
    images = clip.standardise(pixels)
    features = F.normalize(clip.encode_image(images).float(), dim=-1)
    rows = None if first_layer is None else clip.image.activations(images, first_layer)
    return Encoded(features, rows)


def noise_of(seeds: list[int], size: int) -> UnitPixels:
    """Return U(0, 1) [images 3 size size], drawn on the CPU from one seed an image.

    An image's noise does not depend on its neighbours in a batch.
    """
    generator = torch.Generator()
    drawn = [torch.rand(3, size, size, generator=generator.manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn)
