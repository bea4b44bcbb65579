"""KgCoOp: class vectors stay near those of frozen CLIP (arXiv 2303.13283; code).

L = CE + 8 mean_c (1 - cos(g_c, g0_c)) with g_c the tuned and g0_c the frozen class vector. The
frozen ones are those of the run's template (the code has a template for each of its datasets).
"""

from typing import TYPE_CHECKING

import torch

from fedprompt.backbone.encoded import Encoded
from fedprompt.backbone.precision import full_precision
from fedprompt.prompts.method import cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip

WEIGHT = 8.0  # published; prompt.regularisation multiplies it


def by_kgcoop(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of CE + 8 mean(1 - cos(class vector, frozen class vector))."""
    answer = prompt(images, generator)
    loss = cross_entropy(answer.logits, labels)
    cosines = (full_precision(answer.vectors) * prompt.zero_shot).sum(-1)  # both of length one
    (loss + prompt.config.regularisation * WEIGHT * (1 - cosines).mean()).backward()
    return float(loss.detach())
