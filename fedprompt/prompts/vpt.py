"""VPT: visual prompts behind the patches, the classes' texts stay (arXiv 2203.12119).

VPT-Shallow (``prompt.depth`` = 1) appends n vectors once and lets them propagate; VPT-Deep
overwrites them in each of J blocks. In CLIP they stand behind the patches and enter before
``ln_pre``. ``prompt.first_layer`` k prompts blocks k, k + 1, ...: what stands before them is
computed once an image (ours). Trained and sent: ``visual.i`` [n width] for each block.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.forms import Form, Layers
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import Start, depth_of, drawn_visuals
from fedprompt.prompts.words import Layout
from fedprompt.settings.prompt import VptConfig

LENGTH = 4  # visual tokens, where prompt.tokens is 0 (ours)


class Vpt(nn.Module):
    """Tune visual prompts, started at N(0, 0.02) or where ``start`` says."""

    layout: Layout | None = None

    def __init__(self, material: Material, start: Start = drawn_visuals) -> None:
        super().__init__()
        image, config = material.clip.image, VptConfig.of(material.config)
        self.first_layer: int | None = config.first_layer
        blocks = len(image.blocks) - config.first_layer
        depth = depth_of(config, blocks, blocks)
        length = config.tokens or LENGTH
        layers = range(config.first_layer, config.first_layer + depth)
        self.visual = Layers(map(material.form, start(material, layers, length)))

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the prompts of all prompted blocks."""
        return Entering(visual=self.visual(generator))

    def matrices(self) -> Sequence[Form]:
        """Return the prompts, one a block."""
        return self.visual.matrices

    def describe(self) -> dict[str, Any]:
        """Return length, depth and first block."""
        length = len(self.visual.matrices[0].fold())
        described = {"host": "vpt", "tokens": length, "depth": len(self.visual)}
        return described | {"first_layer": self.first_layer}


VPT = Recipe(Vpt)
