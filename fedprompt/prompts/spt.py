"""SPT, self-prompt tuning: VPT's host, started at the tower's own patch tokens (arXiv 2402.02382).

Block 0's prompt starts from the patch embedding without positions, block i's from the output of
block i - 1 without the class token (code); ``prompt.start`` says how n of them are picked. Deep by
default, 20 tokens in every block: (12, 20, 768) = 184,320 numbers for ViT-B/16; with
``prompt.depth`` = 1 shallow, 100 tokens: 76,800. Trained, sent and folded as VPT.

Raw prototypes tell of their images. So they come from images that everyone may see
(``prompt.public``), or the server merges noised centres of the sites' tokens
(`server/rounds/spt_start.py`).
In form full the server sends the start as round 0's arrays, and a site needs no images for it: it
builds any. In form lowrank the start is frozen and every site computes it from the same images.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.patch_tokens import patch_tokens
from fedprompt.errors import PromptError
from fedprompt.prompts.host import Material
from fedprompt.prompts.prototypes import pick
from fedprompt.prompts.public_images import public_pixels
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import Start, drawn_visuals
from fedprompt.prompts.vpt import Vpt
from fedprompt.settings.prompt import SptConfig
from fedprompt.types import Context

DEEP, SHALLOW = 20, 100  # tokens in a block


def spt(material: Material) -> Vpt:
    """Return VPT's host at prototypes.

    Raises
    ------
    PromptError
        ``prompt.public`` is empty, and nobody said that any start will do.
    """
    config = SptConfig.of(material.config)
    length = config.tokens or (SHALLOW if config.depth == 1 else DEEP)
    own = replace(material, config=config.model_copy(update={"tokens": length}))
    return Vpt(own, _start(material))


def _start(material: Material) -> Start:
    config = SptConfig.of(material.config)
    is_overwritten = material.any_start and config.form != "lowrank"
    if config.public and not (is_overwritten and config.personal == "global"):
        return from_public
    if material.any_start:
        return drawn_visuals
    raise PromptError(
        "prompt.method = spt starts at patch tokens of images, and prompt.public is empty: name a "
        "data source that everyone may see, or in a federation of prompt.form = full set "
        "prompt.start_noise above 0 for noised centres of the sites' own tokens"
    )


def from_public(material: Material, layers: range, length: int) -> Sequence[Context]:
    """Return the prototypes [length width] of each block's tokens of the public images."""
    # one draw, so that all that is drawn later does not depend on the images
    seed = int(torch.randint(2**31, (), generator=material.generator))
    found = _prototypes(material.clip, _asked(SptConfig.of(material.config)), layers, length, seed)
    return [matrix.to(material.clip.device) for matrix in found]


def _asked(config: SptConfig) -> tuple[str, str, int]:
    return config.public, config.start, config.start_images


@lru_cache(maxsize=2)  # the sites of a process share it
def _prototypes(
    clip: FrozenClip, asked: tuple[str, str, int], layers: range, length: int, seed: int
) -> tuple[Context, ...]:
    public, how, most = asked
    pixels = public_pixels(public, most, clip.preprocessing, seed)
    return tuple(pick(how, tokens, length, seed) for tokens in patch_tokens(clip, pixels, layers))


SPT = Recipe(spt)
