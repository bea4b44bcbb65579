"""Linear probe: logits = W z + b of frozen unit image features (CLIP, arXiv 2103.00020, has one).

W = s C0 + D with s the logit scale and C0 [classes joint] the template's class vectors. Trained and
sent: ``weight``, which is D, and ``bias`` b [classes]. Both start at zero, so that round 0 is
zero-shot CLIP, and weight decay pulls towards it (ours: CLIP's own probe is a logistic regression
from nothing). classes * (joint + 1) numbers; D takes either form. Its rows belong to their classes:
of others it can say nothing. Folds into class vectors W / s and a bias.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.prompts.forms import Form
from fedprompt.prompts.head import refuse_prompt_terms
from fedprompt.prompts.host import Material
from fedprompt.prompts.method import Folded
from fedprompt.prompts.recipe import HeadRecipe
from fedprompt.prompts.zero_shot import zero_shot_vectors
from fedprompt.types import ImageFeatures, Logits


class Linear(nn.Module):
    """Tune a linear classifier."""

    def __init__(self, material: Material, classes: Sequence[str]) -> None:
        super().__init__()
        refuse_prompt_terms(material.config)
        self.vectors: Tensor
        self.scale = material.clip.logit_scale
        vectors = zero_shot_vectors(material.clip, classes, material.template)
        self.register_buffer("vectors", vectors)
        self.weight = material.form(torch.zeros_like(vectors))
        self.bias = nn.Parameter(torch.zeros_like(vectors[:, 0]))

    def forward(self, features: ImageFeatures, generator: torch.Generator | None = None) -> Logits:
        """Return W z + b."""
        weight = self.scale * self.vectors + self.weight(generator)
        return F.linear(features, weight, self.bias)

    def fold(self) -> Folded:
        """Return W / s and b."""
        vectors = self.vectors + self.weight.fold() / self.scale
        return Folded(class_vectors=vectors, bias=self.bias.detach().clone())

    def matrices(self) -> Sequence[Form]:
        """Return D."""
        return [self.weight]

    def halve_chunk(self) -> bool:
        """Return False: one product is all there is."""
        return False

    def describe(self) -> dict[str, Any]:
        """Return the kind; a probe has no tokens."""
        return {"host": "linear", "tokens": 0}


LINEAR = HeadRecipe(Linear, tied=True)
