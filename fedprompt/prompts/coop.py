"""CoOp: free vectors in front of every class name (arXiv 2109.01134); DIP is its low-rank form.

The text of a class is [ctx_1] ... [ctx_n] NAME REST, where REST is what the template has behind
the name; the class token stands at the end. Trained and sent: ``ctx`` [n width] in the full form,
``ctx.A`` [n r] and ``ctx.B`` [r width] in the low-rank one. Folds into class vectors.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.forms import Form
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.starts import text_start


class Coop(nn.Module):
    """Tune a text context."""

    first_layer: int | None = None

    def __init__(self, material: Material) -> None:
        super().__init__()
        self.ctx = material.form(text_start(material))
        self.text_length = len(self.ctx.fold())

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the context as the first text block's prompt."""
        return Entering(text=self.ctx(generator).unsqueeze(0))

    def matrices(self) -> Sequence[Form]:
        """Return the context."""
        return [self.ctx]

    def describe(self) -> dict[str, Any]:
        """Return the length."""
        return {"host": "coop", "tokens": self.text_length}
