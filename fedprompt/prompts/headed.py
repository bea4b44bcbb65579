"""A frozen CLIP with a trained head: the one class behind every method that prompts no tower."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.density import density_penalty, mean_density
from fedprompt.prompts.forms import describe_form
from fedprompt.prompts.head import Head
from fedprompt.prompts.method import (
    Folded,
    cross_entropy,
    load_module_arrays,
    load_module_buffers,
    module_arrays,
    module_buffers,
    module_leaving,
)
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import Labels, Logits


@dataclass(frozen=True, eq=False)
class Scores:
    """Hold what a head makes of a batch."""

    logits: Logits


class HeadedClip(nn.Module):
    """Tune a head on a frozen CLIP's image features, by cross-entropy.

    Parameters
    ----------
    head
        Owns what is trained.
    config
        Method and loss terms.
    """

    first_layer: int | None = None

    def __init__(self, head: Head, config: PromptConfig) -> None:
        super().__init__()
        self.head: Any = head  # a module, too
        self.config = config

    def forward(self, images: Encoded, generator: torch.Generator | None = None) -> Scores:
        """Return the logits of a batch; with a generator as in training."""
        return Scores(self.head(images.features, generator))

    def backward(self, images: Encoded, labels: Labels, generator: torch.Generator | None) -> float:
        """Add the gradients of a batch's mean cross-entropy and return it, nats."""
        loss = cross_entropy(self(images, generator).logits, labels)
        loss.backward()
        return float(loss.detach())

    @torch.no_grad()
    def predict(self, images: EncodedImages) -> Logits:
        """Return logits [images classes]."""
        logits: Logits = self.head(images.features)
        return logits

    @torch.no_grad()
    def fold(self) -> Folded:
        """Return what is deployed; PromptError where nothing folds."""
        folded: Folded = self.head.fold()
        return folded

    def arrays(self) -> PromptState:
        """Return the head's trained tensors, by name."""
        return module_arrays(self.head)

    def leaving(self) -> PromptState:
        """Return what a site sends: all of them, or of a fresh basis the update alone."""
        return module_leaving(self.head)

    def load_arrays(self, arrays: PromptState) -> None:
        """Take what travelled."""
        load_module_arrays(self.head, arrays)

    def frozen_arrays(self) -> PromptState:
        """Return the head's frozen tensors."""
        return module_buffers(self.head)

    def load_frozen(self, arrays: PromptState) -> None:
        """Take the frozen tensors of an artefact."""
        load_module_buffers(self.head, arrays)

    def halve_chunk(self) -> bool:
        """Compute half as much at a time from now on; False if that is not possible."""
        return bool(self.head.halve_chunk())

    def penalty(self) -> Tensor:
        """Return DIP's DO and PP, zero unless they are set: heads without prompts refuse them."""
        return density_penalty(self.head.matrices(), self.config)

    def information_density(self) -> float:
        """Return the mean ID_k of the folded matrices."""
        return mean_density(self.head.matrices(), self.config)

    def describe(self) -> dict[str, Any]:
        """Return method, head, form, rank and the head's own settings."""
        form = describe_form(self.head)
        described = {"method": self.config.method, **self.head.describe(), **form}
        return described | self.config.describe_whose()
