"""IVLP: independent deep prompts of both towers (the baseline of MaPLe, arXiv 2210.03117; code).

Text prompts t_0 ... t_{J-1} [n text_width]: t_0 starts at the words and takes the placeholders'
place, t_i overwrites it before block i. Visual prompts v_0 ... v_{J-1} [n vision_width] stand
behind the patches and are overwritten alike. All but t_0 start at N(0, 0.02). Trained and sent:
``text.i`` and ``visual.i``; 46,080 numbers for ViT-B/16, n = 4, J = 9.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.forms import Form, Layers
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import deep_text_starts, depth_of, drawn_visuals
from fedprompt.settings.prompt import DeepConfig

DEPTH = 9  # blocks of each tower, in the code of MaPLe and PromptSRC


class Ivlp(nn.Module):
    """Tune deep text and visual prompts."""

    first_layer: int | None = 0

    def __init__(self, material: Material) -> None:
        super().__init__()
        text, image = material.clip.text, material.clip.image
        depth = depth_of(
            DeepConfig.of(material.config), DEPTH, min(len(text.blocks), len(image.blocks))
        )
        texts, self.layout = deep_text_starts(material, depth)
        visuals = drawn_visuals(material, range(depth), self.layout.length)
        self.text = Layers(map(material.form, texts))
        self.visual = Layers(map(material.form, visuals))

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the prompts of both towers."""
        return Entering(text=self.text(generator), visual=self.visual(generator))

    def matrices(self) -> Sequence[Form]:
        """Return the prompts, text first."""
        return [*self.text.matrices, *self.visual.matrices]

    def describe(self) -> dict[str, Any]:
        """Return length and depth."""
        return {"host": "ivlp", **self.layout.describe(), "depth": len(self.text)}


IVLP = Recipe(Ivlp)
PROMPTSRC = Recipe(Ivlp, objective="promptsrc", averaged=True)
