"""MaPLe: visual prompts are linear maps of the text prompts (arXiv 2210.03117; code).

Text prompts t_0 ... t_{J-1} [n text_width] as in IVLP; the image tower gets, behind the patches
and overwritten in each of its first J blocks,

    v_i = t_i W_i^T + b_i,   W_i [vision_width text_width], b_i [vision_width]

with one map a layer, started as ``nn.Linear`` starts. t_0 starts at the words, the other t_i at
N(0, 0.02). J = 9, or all blocks of the shallower tower. The code has n = 2: the first two of the
words "a photo of a" are tuned and the others stay words, so that a text is "[1][2] of a NAME.";
that is ``prompt.tokens`` = 2. Trained and sent: ``text.i``, ``maps.i.weight`` and ``maps.i.bias``:
3,555,072 numbers for ViT-B/16, n = 2. In the low-rank form (ours) W_i = W_i0 + A B as well; b_i
stays full. Folds into class vectors and the visual prompts v_i: the maps are gone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.forms import Form, Layers
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.maps import LinearMap
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import deep_text_starts, depth_of
from fedprompt.settings.prompt import DeepConfig

DEPTH = 9  # blocks of each tower, in MaPLe's code


class Maple(nn.Module):
    """Tune deep text prompts and their maps to the image tower."""

    first_layer: int | None = 0

    def __init__(self, material: Material) -> None:
        super().__init__()
        text, image = material.clip.text, material.clip.image
        depth = depth_of(
            DeepConfig.of(material.config), DEPTH, min(len(text.blocks), len(image.blocks))
        )
        texts, self.layout = deep_text_starts(material, depth)
        self.text = Layers(map(material.form, texts))
        self.maps = nn.ModuleList(
            LinearMap(text.width, image.width, material.form, material.generator)
            for _ in range(depth)
        )

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the text prompts, and what the maps make of the same ones."""
        texts = self.text(generator)
        visuals = [
            layer(tokens.unsqueeze(0), generator)
            for layer, tokens in zip(self.maps, texts, strict=True)
        ]
        return Entering(text=texts, visual=torch.cat(visuals))

    def matrices(self) -> Sequence[Form]:
        """Return the text prompts: the maps are no prompts."""
        return self.text.matrices

    def describe(self) -> dict[str, Any]:
        """Return length and depth."""
        return {"host": "maple", **self.layout.describe(), "depth": len(self.text)}


MAPLE = Recipe(Maple)
