"""CoCoOp: a text context that each image shifts (arXiv 2203.05557; code).

The context of an image with unit feature z is v_m + pi for each of its tokens v_1 ... v_n, with

    pi = W2 relu(W1 z + b1) + b2    W1 [joint/16 joint]    W2 [width joint/16]

so every image has class vectors of its own. v starts at the words, W1 as torch's linear layer, b1,
W2 and b2 at zero, so that round 0 is zero-shot CLIP (ours: the code draws all four). Trained and
sent: ``ctx``, ``narrow`` W1, ``narrow_bias``, ``widen`` W2, ``widen_bias``; 35,360 numbers for
ViT-B/16 and n = 4 (our arithmetic); the three matrices take either form. DIP's loss terms and the
information density are those of ``ctx``.

One image's class texts are computed at a time, and again in the backward pass, so that memory does
not grow with images x classes; time does: an image costs what a batch of CoOp costs. Nothing folds,
because the text tower is needed at every image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fedprompt.backbone.precision import tower_precision
from fedprompt.errors import PromptError
from fedprompt.prompts.class_texts import ClassTexts
from fedprompt.prompts.forms import Form
from fedprompt.prompts.head import linear_start
from fedprompt.prompts.host import Material
from fedprompt.prompts.method import Folded, cosine_logits
from fedprompt.prompts.recipe import HeadRecipe
from fedprompt.prompts.starts import text_start
from fedprompt.prompts.zero_shot import zero_shot_vectors
from fedprompt.types import Context, ImageFeatures, Logits

REDUCTION = 16  # joint numbers to one hidden number of the meta-net; published


class Cocoop(nn.Module):
    """Tune a text context and the small net that shifts it."""

    def __init__(self, material: Material, classes: Sequence[str]) -> None:
        super().__init__()
        clip, template = material.clip, material.template
        self.scale = clip.logit_scale
        joint = zero_shot_vectors(clip, classes[:1], template).shape[1]
        hidden, width = max(1, joint // REDUCTION), clip.text.width
        words = text_start(material)
        start, self.layout = words.matrix, words.layout
        self.ctx = material.form(start)
        self.narrow = material.form(linear_start(hidden, joint, material))
        self.narrow_bias = nn.Parameter(start.new_zeros(hidden))
        self.widen = material.form(start.new_zeros(width, hidden))
        self.widen_bias = nn.Parameter(start.new_zeros(width))
        self._classes = len(classes)
        self._texts = ClassTexts(clip, classes, template, self.layout)

    def forward(self, features: ImageFeatures, generator: torch.Generator | None = None) -> Logits:
        """Return scale * cos(image, the image's own class vectors)."""
        context = self.ctx(generator)
        hidden = F.linear(features, self.narrow(generator), self.narrow_bias).relu()
        shifts = F.linear(hidden, self.widen(generator), self.widen_bias)
        rows = zip(features.unsqueeze(1), shifts, strict=True)
        none = features.new_zeros(0, self._classes)
        return torch.cat([none, *(self._row(image, context + shift) for image, shift in rows)])

    def fold(self) -> Folded:
        """Refuse: there are no class vectors that serve every image.

        Raises
        ------
        PromptError
            Always.
        """
        raise PromptError(
            "prompt.method = cocoop computes its class vectors anew for every image, so it does "
            "not fold into constants and is not exported; use coop or dip, whose class vectors "
            "are the same for all images"
        )

    def matrices(self) -> Sequence[Form]:
        """Return the context."""
        return [self.ctx]

    def halve_chunk(self) -> bool:
        """Encode half as many classes at a time from now on; False if one is too many (F31)."""
        return self._texts.halve_chunk()

    def describe(self) -> dict[str, Any]:
        """Return the length."""
        return {"host": "cocoop"} | self.layout.describe()

    def _row(self, image: ImageFeatures, context: Context) -> Logits:
        """Return one image's logits; all that is kept for the backward pass is its context."""

        def compute(image: ImageFeatures, context: Context) -> Logits:
            with tower_precision(context.device):
                vectors = self._texts.vectors(context.unsqueeze(0))
            return cosine_logits(image, vectors, self.scale)

        if not torch.is_grad_enabled():
            return compute(image, context)
        row: Logits = checkpoint(compute, image, context, use_reentrant=False)
        return row


COCOOP = HeadRecipe(Cocoop)
