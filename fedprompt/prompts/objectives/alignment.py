"""ADAPT's objective: an image's feature is to point where its class does (arXiv 2310.03103; text).

L = mean (1 - cos(z, c_y)) with c_y the vector of the true class y. Other classes do not enter.
"""

from typing import TYPE_CHECKING

import torch

from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.method import cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip


def by_alignment(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of mean(1 - cos(image, true class)); return the mean cross-entropy."""
    logits = prompt(images, generator).logits
    cosines = logits.gather(1, labels.unsqueeze(1)) / prompt.scale
    (1 - cosines).mean().backward()
    return float(cross_entropy(logits.detach(), labels))
