"""The zero-shot template: hand-written words, nothing trained (CLIP, arXiv 2103.00020)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.method import Arrays
from fedprompt.types import TextFeatures


class Template(nn.Module):
    """Classify by a template such as "a photo of a {}."."""

    def __init__(self, clip: FrozenClip, classes: Sequence[str], template: str) -> None:
        super().__init__()
        self.vectors: Tensor
        names = [name.replace("_", " ") for name in classes]
        with torch.no_grad():
            tokens = clip.tokenize([template.format(name) for name in names])
            vectors = F.normalize(clip.encode_text(tokens), dim=-1)
        self.register_buffer("vectors", vectors, persistent=False)

    def arrays(self) -> Arrays:
        """Return nothing: a template does not travel."""
        return {}

    def load_arrays(self, arrays: Arrays) -> None:
        """Refuse anything that was trained."""
        if arrays:
            raise PromptError(f"a template has no arrays, found {sorted(arrays)}")

    def frozen_arrays(self) -> Arrays:
        """Return the class vectors, so that an artefact of a template is complete."""
        return {"vectors": self.vectors.float().cpu().numpy().copy()}

    def class_vectors(self, generator: torch.Generator | None = None) -> TextFeatures:  # noqa: ARG002
        """Return unit class vectors [classes joint]."""
        return self.vectors

    def fold(self) -> TextFeatures:
        """Return unit class vectors [classes joint]."""
        return self.vectors

    def penalty(self) -> Tensor:
        """Return zero."""
        return self.vectors.new_zeros(())

    def information_density(self) -> float:
        """Return 1: there is no prompt matrix."""
        return 1.0

    def describe(self) -> dict[str, Any]:
        """Return method, host, form, rank and tokens."""
        return {"method": "template", "host": "template", "form": "full", "rank": 0, "tokens": 0}
