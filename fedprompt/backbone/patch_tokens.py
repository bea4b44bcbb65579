"""The image tower's own tokens, layer by layer, the same bits on every machine.

Processors and thread counts round otherwise in float32. Here the tower runs in float64 on the CPU,
whatever device and precision it has elsewhere; what is made of the tokens is then rounded far more
coarsely (`fedprompt/prompts/prototypes.py`), so that machines agree.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from fedprompt.backbone.clip import FrozenClip
from fedprompt.types import Pixels

LayerTokens = Float64[Tensor, "images patches vision_width"]
_Rows = Float64[Tensor, "batch positions vision_width"]
_AT_ONCE = 16  # images: attention in float64 takes twice the memory


@torch.no_grad()
def patch_tokens(clip: FrozenClip, pixels: Pixels, layers: range) -> Iterator[LayerTokens]:
    """Yield the patch tokens of all images that enter each of the blocks ``layers``.

    Block 0 gets the patch embedding without positions, as it stands before ``ln_pre``; block i the
    output of block i - 1 without the class token (SPT, arXiv 2402.02382). Memory holds one layer of
    all images, and one block of the tower.
    """
    visual = clip.image.visual
    conv = _exact(visual.conv1)
    images = _standardised(clip, pixels)
    if 0 in layers:
        patches = [conv(part).flatten(2).transpose(1, 2) for part in images.split(_AT_ONCE)]
        yield torch.cat(patches)
    stem = _exact(_without_blocks(visual))
    rows: list[_Rows] = [stem._embeds(part) for part in images.split(_AT_ONCE)]
    for layer in range(1, layers.stop):
        block = _exact(clip.image.blocks[layer - 1])
        rows = [block(part) for part in rows]
        if layer in layers:
            yield torch.cat([part[:, 1:] for part in rows])


def _standardised(clip: FrozenClip, pixels: Pixels) -> Float64[Tensor, "batch 3 size size"]:
    pre = clip.preprocessing
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (pre.mean, pre.std))
    return (pixels.cpu().permute(0, 3, 1, 2).double() / 255 - mean) / std


def _exact(module: nn.Module) -> Any:
    """Return a copy in float64 on the CPU."""
    return copy.deepcopy(module).cpu().double()


def _without_blocks(visual: nn.Module) -> nn.Module:
    """Return the tower's stem: its blocks are copied one at a time."""
    stem = copy.copy(visual)
    stem._modules = {**visual._modules, "transformer": nn.Identity()}
    return stem
