"""PromptSRC: prompts of both towers, held to the frozen CLIP (arXiv 2307.06948; code).

L = CE + 25 |g - g0|_1 + 10 |f - f0|_1 + KL(p0 || p). g, f are the tuned unit class vectors and
image features, g0, f0 the frozen ones, p, p0 the softmax of their cosine logits; |.|_1 is the mean
absolute difference of their numbers, and KL is divided by images x classes (the code has this term
and this mean). The code's g0 is a mean over many templates; here it is the run's own (ours).
PromptSRC also averages the prompts of its epochs: `fedprompt.prompts.averaging`.
"""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.method import cosine_logits, cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip

TEXT_WEIGHT, IMAGE_WEIGHT = 25.0, 10.0  # published; prompt.regularisation multiplies all three


def by_promptsrc(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of CE and of the three distances to the frozen CLIP."""
    answer = prompt(images, generator)
    loss = cross_entropy(answer.logits, labels)
    frozen = cosine_logits(images.features, prompt.zero_shot, prompt.scale)
    apart = TEXT_WEIGHT * F.l1_loss(answer.vectors.float(), prompt.zero_shot)
    apart = apart + IMAGE_WEIGHT * F.l1_loss(answer.features.float(), images.features)
    differs = F.kl_div(
        answer.logits.log_softmax(-1), frozen.log_softmax(-1), log_target=True, reduction="none"
    )
    apart = apart + differs.mean()
    (loss + prompt.config.regularisation * apart).backward()
    return float(loss.detach())
