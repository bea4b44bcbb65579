"""Zero-shot by hand-written words, one template or several; nothing trained (arXiv 2103.00020)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.method import (
    Answer,
    Folded,
    cosine_logits,
    load_module_buffers,
    module_buffers,
)
from fedprompt.prompts.zero_shot import zero_shot_vectors
from fedprompt.types import Labels, Logits, TextFeatures

# the seven that CLIP's authors recommend for ImageNet: method ensemble
ENSEMBLE_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class Template(nn.Module):
    """Classify by a template such as "a photo of a {}.", or by the mean of several."""

    first_layer: int | None = None

    def __init__(self, clip: FrozenClip, classes: Sequence[str], *templates: str) -> None:
        super().__init__()
        self.vectors: Tensor
        self.scale, self.templates = clip.logit_scale, templates
        self._method = "template" if len(templates) == 1 else "ensemble"
        vectors = zero_shot_vectors(clip, classes, *templates)
        self.register_buffer("vectors", vectors, persistent=False)

    def arrays(self) -> PromptState:
        """Return nothing: a template does not travel."""
        return PromptState()

    def leaving(self) -> PromptState:
        """Return what a site sends of them: all."""
        return self.arrays()

    def load_arrays(self, arrays: PromptState) -> None:
        """Refuse anything that was trained."""
        if arrays:
            raise PromptError(f"a template has no arrays, found {sorted(arrays)}")

    def frozen_arrays(self) -> PromptState:
        """Return the class vectors, so that an artefact of a template is complete."""
        return module_buffers(self)

    def load_frozen(self, arrays: PromptState) -> None:
        """Take the class vectors of an artefact."""
        load_module_buffers(self, arrays)

    def backward(
        self,
        images: Encoded,  # noqa: ARG002
        labels: Labels,  # noqa: ARG002
        generator: torch.Generator | None,  # noqa: ARG002
    ) -> float:
        """Refuse to train.

        Raises
        ------
        PromptError
            Always: there is nothing to train.
        """
        raise PromptError("a template trains nothing; use `fedprompt eval`, or another method")

    def forward(self, images: Encoded, generator: torch.Generator | None = None) -> Answer:  # noqa: ARG002
        """Return logits and features of a batch; gradients flow to the images."""
        logits = cosine_logits(images.features, self.vectors, self.scale)
        return Answer(logits=logits, features=images.features, vectors=self.vectors)

    def predict(self, images: EncodedImages) -> Logits:
        """Return scale * cos(image, class) [images classes]."""
        return cosine_logits(images.features, self.vectors, self.scale)

    def class_vectors(self, generator: torch.Generator | None = None) -> TextFeatures:  # noqa: ARG002
        """Return unit class vectors [classes joint]."""
        return self.vectors

    def fold(self) -> Folded:
        """Return the class vectors."""
        return Folded(class_vectors=self.vectors)

    def halve_chunk(self) -> bool:
        """Return False: the vectors are there, nothing is encoded any more."""
        return False

    def penalty(self) -> Tensor:
        """Return zero."""
        return self.vectors.new_zeros(())

    def information_density(self) -> float:
        """Return 1: there is no prompt matrix."""
        return 1.0

    def describe(self) -> dict[str, Any]:
        """Return method, host, form, rank and tokens."""
        return {"method": self._method, "host": "template", "form": "full", "rank": 0, "tokens": 0}
