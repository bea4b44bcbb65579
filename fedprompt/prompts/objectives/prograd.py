"""ProGrad: no step against what frozen CLIP knows (arXiv 2205.14865; code).

g is the gradient of CE, k the one of KL(p0 || p), where p and p0 are the tuned and the frozen
softmax. Where they conflict, g . k < 0, the part of g along k is taken out:

    g - (g . k / |k|) k / |k|

for each trained tensor alone (in the low-rank form for A and for B). The mean over images of the
cross-entropy against p0 has the same gradient as KL, and is what the code computes.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.method import cosine_logits, cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip


def by_prograd(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of CE, less what lies against those of KL(frozen || tuned).

    ``prompt.regularisation`` is the share of it that is taken out, 1 as published.
    """
    answer = prompt(images, generator)
    trained = [tensor for tensor in prompt.parameters() if tensor.requires_grad]
    loss = cross_entropy(answer.logits, labels)
    frozen = cosine_logits(images.features, prompt.zero_shot, prompt.scale).softmax(-1)
    distance = F.cross_entropy(answer.logits, frozen)
    known = torch.autograd.grad(distance, trained, retain_graph=True)
    wanted = torch.autograd.grad(loss, trained)
    for tensor, gradient, kept in zip(trained, wanted, known, strict=True):
        step = aligned(gradient, kept, prompt.config.regularisation)
        tensor.grad = step if tensor.grad is None else tensor.grad + step
    return float(loss.detach())


def aligned(gradient: Tensor, known: Tensor, share: float) -> Tensor:
    """Return ``gradient`` without ``share`` of its part against ``known``, if there is one."""
    direction = F.normalize(known.flatten(), dim=0).view_as(known)  # zero where k is zero
    along = (gradient * direction).sum()
    return gradient - share * along.clamp(max=0) * direction
