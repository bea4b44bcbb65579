"""CoOp: free vectors beside every class name (arXiv 2109.01134; code); DIP is its low-rank form.

The text of a class is [ctx_1] ... [ctx_n] NAME REST, where REST is what the template has behind
the name. ``prompt.name_position`` = middle puts the name behind n // 2 of the vectors, front in
front of all. Trained and sent: ``ctx`` [n width] in the full form, ``ctx.A`` [n r] and ``ctx.B``
[r width] in the low-rank one. Folds into class vectors.

``prompt.class_specific`` gives each class vectors of its own (CSC): ``ctx`` is [classes n width],
those of class c in rows c n ... (c + 1) n - 1. They start at N(0, 0.02), or all at the same words
(ours: the code's are random). In the low-rank form (ours) the one matrix of all classes is
P0 + A B, so that classes share B. A class's vectors serve no other class.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.forms import Form
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import text_start


class Coop(nn.Module):
    """Tune a text context."""

    first_layer: int | None = None

    def __init__(self, material: Material) -> None:
        super().__init__()
        start = text_start(material)
        self.ctx, self.layout = material.form(start.matrix), start.layout

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the context as the first text block's prompt."""
        return Entering(text=self.ctx(generator).unsqueeze(0))

    def matrices(self) -> Sequence[Form]:
        """Return the context."""
        return [self.ctx]

    def describe(self) -> dict[str, Any]:
        """Return the length, and where the context stands."""
        return {"host": "coop"} | self.layout.describe()


COOP = Recipe(Coop)
DIP = Recipe(Coop, form="lowrank")
KGCOOP = Recipe(Coop, objective="kgcoop")
PROGRAD = Recipe(Coop, objective="prograd")
