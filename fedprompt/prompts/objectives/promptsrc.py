"""PromptSRC: prompts of both towers, held to the frozen CLIP (arXiv 2307.06948; code).

L = CE + 25 |g - g0|_1 + 10 |f - f0|_1 + KL(p0 || p). g, f are the tuned unit class vectors and
image features, g0, f0 the frozen ones, p, p0 the softmax of their cosine logits; |.|_1 is the mean
absolute difference of their numbers, and KL is divided by images x classes (the code has this term
and this mean). g0 is the mean over 60 templates, PromptSRC's textual diversity; ``prompt.teacher``
= template takes the run's own alone. PromptSRC also averages the prompts of its epochs:
`fedprompt.prompts.averaging`.
"""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded
from fedprompt.backbone.precision import full_precision
from fedprompt.prompts.method import cosine_logits, cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip

TEXT_WEIGHT, IMAGE_WEIGHT = 25.0, 10.0  # published; prompt.regularisation multiplies all three
# of CLIP's authors for ImageNet, those of PromptSRC's code
TEMPLATES = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
)


def by_promptsrc(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of CE and of the three distances to the frozen CLIP."""
    answer = prompt(images, generator)
    loss = cross_entropy(answer.logits, labels)
    alone = prompt.config.teacher == "template"
    known = prompt.zero_shot if alone else prompt.diverse_vectors(TEMPLATES)
    frozen = cosine_logits(images.features, known, prompt.scale)
    apart = TEXT_WEIGHT * F.l1_loss(full_precision(answer.vectors), known)
    apart = apart + IMAGE_WEIGHT * F.l1_loss(full_precision(answer.features), images.features)
    differs = F.kl_div(
        answer.logits.log_softmax(-1), frozen.log_softmax(-1), log_target=True, reduction="none"
    )
    apart = apart + differs.mean()
    (loss + prompt.config.regularisation * apart).backward()
    return float(loss.detach())
