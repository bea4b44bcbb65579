"""What a head is: it owns what is trained behind the frozen image tower."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedprompt.errors import PromptError
from fedprompt.prompts.forms import Form
from fedprompt.prompts.host import Material
from fedprompt.prompts.method import Folded
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import Context, ImageFeatures, Logits


@runtime_checkable
class Head(Protocol):
    """Own what takes an image's frozen feature to logits; no prompt enters the image tower."""

    scale: float

    def __call__(self, features: ImageFeatures, generator: torch.Generator | None = None) -> Logits:
        """Return logits [images classes] of unit features; with a generator as in training."""

    def fold(self) -> Folded:
        """Return what is deployed; PromptError where nothing folds."""

    def matrices(self) -> Sequence[Form]:
        """Return the matrices, whose information density is told."""

    def halve_chunk(self) -> bool:
        """Compute half as much at a time from now on; False if that is not possible."""

    def describe(self) -> dict[str, Any]:
        """Return the settings that rebuild the head."""


def linear_start(outputs: int, inputs: int, material: Material) -> Context:
    """Return a linear layer's start U(-1/sqrt(inputs), 1/sqrt(inputs)) [outputs inputs].

    torch's own, but drawn on the CPU from the run's seed, so that every machine draws the same.
    """
    drawn: Tensor = 2 * torch.rand(outputs, inputs, generator=material.generator) - 1
    return (drawn / math.sqrt(inputs)).to(material.clip.device)


def refuse_prompt_terms(config: PromptConfig) -> None:
    """Refuse DIP's loss terms for a head without a prompt matrix.

    Raises
    ------
    PromptError
        One of them is set.
    """
    if config.density_weight or config.tail_weight:
        raise PromptError(
            f"prompt.density_weight = {config.density_weight} and prompt.tail_weight = "
            f"{config.tail_weight} are of prompt matrices, prompt.method = {config.method} has "
            "none; set both to 0"
        )
