"""The plain image tower: open_clip's own forward, with prompt tokens appended."""

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import BackboneError
from fedprompt.types import ImageFeatures, Images


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
    if not isinstance(visual, VisionTransformer):
        raise BackboneError(
            f"the image tower {type(visual).__name__} takes no prompt tokens; expected an "
            "open_clip VisionTransformer: use a text host or another backbone"
        )
    return _encode_prompted(visual, images, prompts)


def _encode_prompted(
    visual: VisionTransformer, images: Images, prompts: ImagePrompts
) -> ImageFeatures:
    # the tokens enter before ln_pre, as in IVLP and MuDPT; open_clip's _embeds cannot take them
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(patches), 1, -1)
    rows = torch.cat([first, patches], 1) + visual.positional_embedding
    own, length = rows.shape[1], prompts.tokens.shape[1]
    rows = visual.ln_pre(torch.cat([rows, prompts.tokens[0].expand(len(rows), -1, -1)], 1))
    for index, block in enumerate(visual.transformer.resblocks):
        if 0 < index < len(prompts.tokens):
            deep = prompts.tokens[index].expand(len(rows), length, -1)
            rows = torch.cat([rows[:, :own], deep], 1)
        rows = block(rows)
    pooled, _ = visual._pool(rows[:, :own])
    features: Tensor = pooled if visual.proj is None else pooled @ visual.proj
    return features
