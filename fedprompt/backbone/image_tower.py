"""The plain image tower: open_clip's own forward, with prompt tokens appended."""

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import BackboneError, PromptError
from fedprompt.types import Activations, ImageFeatures, Images


class ImageTower:
    """View open_clip's VisionTransformer, cut before any of its blocks.

    Raises
    ------
    BackboneError
        The tower has no tokens (timm, ResNet).
    """

    def __init__(self, visual: nn.Module) -> None:
        if not isinstance(visual, VisionTransformer):
            raise BackboneError(
                f"the image tower {type(visual).__name__} takes no prompt tokens; expected an "
                "open_clip VisionTransformer: use a text host or another backbone"
            )
        self.visual: Any = visual  # its attributes are not typed
        self.blocks = list(visual.transformer.resblocks)
        self.width: int = visual.class_embedding.shape[0]

    def activations(self, images: Images, layer: int) -> Activations:
        """Return what enters block ``layer``: no prompt of it or of a later block can change it.

        Raises
        ------
        PromptError
            There is no such block.
        """
        if not 0 <= layer < len(self.blocks):
            raise PromptError(
                f"the image tower has blocks 0 to {len(self.blocks) - 1}, prompts are to enter at "
                f"block {layer}; lower prompt.first_layer"
            )
        rows: Tensor = self.visual._embeds(images)
        for block in self.blocks[:layer]:
            rows = block(rows)
        return rows

    def encode(self, rows: Activations, prompts: ImagePrompts) -> ImageFeatures:
        """Return image features, not normalised, of rows that enter block ``prompts.first``."""
        own = rows.shape[1]
        for offset, block in enumerate(self.blocks[prompts.first :]):
            if offset < len(prompts.tokens):
                guests = self.entering(prompts, offset).expand(rows.shape[0], -1, -1)
                rows = torch.cat([rows[:, :own], guests], 1)
            rows = block(rows)
        return self.read_out(rows[:, :own])

    def entering(self, prompts: ImagePrompts, offset: int) -> Tensor:
        """Return one prompt matrix as it enters its block: before block 0 stands ``ln_pre``."""
        matrix = prompts.tokens[offset]
        entered: Tensor = self.visual.ln_pre(matrix) if prompts.first + offset == 0 else matrix
        return entered

    def read_out(self, rows: Activations) -> ImageFeatures:
        """Pool the tower's own rows and project them into the joint space."""
        pooled, _ = self.visual._pool(rows)
        features: Tensor = pooled if self.visual.proj is None else pooled @ self.visual.proj
        return features


def encode_images(
    visual: nn.Module, images: Images, prompts: ImagePrompts | None = None
) -> ImageFeatures:
    """Return image features, not normalised; without prompts they are open_clip's own.

    Raises
    ------
    BackboneError
        Prompts are given for a tower without tokens (timm, ResNet).
    """
    if prompts is None:
        found = visual(images)  # CoCa's tower returns its tokens as well
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features
    tower = ImageTower(visual)
    return tower.encode(tower.activations(images, prompts.first), prompts)
