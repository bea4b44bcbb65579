"""What an objective is: a function that leaves the gradients of one batch."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from fedprompt.backbone.encoded import Encoded
from fedprompt.types import Labels

if TYPE_CHECKING:
    from fedprompt.prompts.prompted import PromptedClip


@runtime_checkable
class Objective(Protocol):
    """Train a prompted CLIP on a batch."""

    def __call__(
        self,
        prompt: "PromptedClip",
        images: Encoded,
        labels: Labels,
        generator: torch.Generator | None,
    ) -> float:
        """Add gradients to the prompt's tensors and return the mean cross-entropy, nats."""
