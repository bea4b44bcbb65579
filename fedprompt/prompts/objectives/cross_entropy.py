"""Cross-entropy over cosine logits: CoOp's objective, and every host's default."""

from typing import TYPE_CHECKING

import torch

from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.method import cross_entropy
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip


def by_cross_entropy(
    prompt: "PromptedClip", images: Encoded, labels: Labels, generator: torch.Generator | None
) -> float:
    """Add the gradients of CE(scale cos(image, class), label)."""
    loss = cross_entropy(prompt(images, generator).logits, labels)
    loss.backward()
    return float(loss.detach())
