"""ADAPT's prompts: a text prompt and a visual token for each domain (`fedprompt.prompts.adapt`)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.domain_names import METHOD, domain_names
from fedprompt.prompts.forms import Form, Layers
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.starts import drawn, text_start
from fedprompt.settings.prompt import AdaptConfig


class DomainPrompts(nn.Module):
    """Own the prompts of all domains; of ``own``, an index or None, the text prompt is tuned."""

    first_layer: int | None = 0

    def __init__(self, material: Material) -> None:
        super().__init__()
        clip, config = material.clip, AdaptConfig.of(material.config)
        self.names = domain_names(config)
        self.own = self.names.index(config.domain) if config.domain else None
        start = text_start(material)
        self.layout = start.layout
        self.text = Layers(material.form(start.matrix) for _ in self.names)
        self.visual = material.form(drawn(len(self.names), clip.image.width, material))

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the visual prompts; the text prompts are each a prompt of their own."""
        return Entering(visual=self.visual(generator).unsqueeze(0))

    def matrices(self) -> Sequence[Form]:
        """Return what is tuned: the own text prompt, or all where there is none, and V."""
        own = self.text.matrices if self.own is None else [self.text.matrices[self.own]]
        return [*own, self.visual]

    def describe(self) -> dict[str, Any]:
        """Return the length and the domains in their order."""
        return {"host": METHOD, **self.layout.describe(), "domains": ", ".join(self.names)}
