"""MuDPT: deep prompts of both towers that shift each other (arXiv 2306.11400; code).

Text prompts T0, t_1 ... t_{J-1} [n text_width], visual ones V0, v_1 ... v_{J-1} [n vision_width];
maps E and F from text to vision, G from vision to text, shared by all layers. What enters is

    T0   and   V0' = V0 + E(T0)                       before the first blocks
    t_l' = t_l + G(v_l)   and   v_l' = v_l + F(t_l)   before block l

Visual tokens stand behind the patches, before ``ln_pre``; both sides are overwritten in each of J
blocks. T0 starts at the words, the others at N(0, 0.02); J = 9. Trained and sent: ``text.i``,
``visual.i`` and the maps' tensors.

``prompt.maps = linear``: each map is y = x W^T + b; 1,227,776 numbers for ViT-B/16, n = 4.
``prompt.maps = transformer``: LN, one transformer block over the n tokens, LN, linear (code:
``LightTransformer``); 11,079,168 numbers. E and F are one map there, G the other.

``prompt.freeze_maps``: the maps stay as the seed draws them and only prompts travel, 46,080 numbers
(11,592 at rank 1). They are drawn before anything else, so that ``prompt.seed`` alone decides them
and they need not lie in the artefact; their hash is described, thus sites that would draw others
are refused at joining, and so is an artefact.

In the low-rank form every prompt and every matrix of a map is P0 + A B: all 2-D ones, in a
transformer map the attention's and the MLP's included; biases and LayerNorms stay full. Frozen maps
have no form. Folds into class vectors and the visual prompts v_l'.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.identity import sha256_arrays
from fedprompt.prompts.forms import Form, Full, Layers
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.maps import LinearMap, TransformerMap
from fedprompt.prompts.method import module_arrays
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import deep_text_starts, depth_of, drawn_visuals
from fedprompt.settings.prompt import MudptConfig

DEPTH = 9  # blocks of each tower, in MuDPT's code


class Mudpt(nn.Module):
    """Tune deep text and visual prompts and the maps between them."""

    first_layer: int | None = 0

    def __init__(self, material: Material) -> None:
        super().__init__()
        text, image = material.clip.text, material.clip.image
        config = MudptConfig.of(material.config)
        depth = depth_of(config, DEPTH, min(len(text.blocks), len(image.blocks)))
        self._described: dict[str, Any] = {"maps": config.maps, "freeze_maps": config.freeze_maps}
        maps = _maps(material, config, depth)
        if config.freeze_maps:
            digest = sha256_arrays(module_arrays(maps))[:16]
            self._described |= {"prompt_seed": config.seed, "maps_sha256": digest}
            self._frozen = (maps.requires_grad_(False).to(material.clip.device),)  # not a child
        else:
            self.maps = maps
        texts, self.layout = deep_text_starts(material, depth)
        visuals = drawn_visuals(material, range(depth), self.layout.length)
        self.text = Layers(map(material.form, texts))
        self.visual = Layers(map(material.form, visuals))

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return the prompts of both towers, each shifted by the other's."""
        maps = self._frozen[0] if self._described["freeze_maps"] else self.maps
        texts, visuals = self.text(generator), self.visual(generator)
        if "F" in maps:
            first = maps["E"](texts[:1], generator)
            shifts = torch.cat([first, maps["F"](texts[1:], generator)])
        else:
            shifts = maps["E"](texts, generator)
        shifted = texts
        if "G" in maps:
            shifted = torch.cat([texts[:1], texts[1:] + maps["G"](visuals[1:], generator)])
        return Entering(text=shifted, visual=visuals + shifts)

    def matrices(self) -> Sequence[Form]:
        """Return the prompts, text first: the maps are no prompts."""
        return [*self.text.matrices, *self.visual.matrices]

    def describe(self) -> dict[str, Any]:
        """Return length, depth and maps; of frozen maps the seed and the hash."""
        described = {"host": "mudpt", **self.layout.describe(), "depth": len(self.text)}
        return described | self._described


def _maps(material: Material, config: MudptConfig, depth: int) -> nn.ModuleDict:
    """Return E, F and G; without F, E is used in its place; one layer needs E alone."""
    text, vision = material.clip.text.width, material.clip.image.width
    form = Full if config.freeze_maps else material.form
    kind = TransformerMap if config.maps == "transformer" else LinearMap
    maps = nn.ModuleDict({"E": kind(text, vision, form, material.generator)})
    if depth > 1 and kind is LinearMap:
        maps["F"] = kind(text, vision, form, material.generator)
    if depth > 1:
        maps["G"] = kind(vision, text, form, material.generator)
    return maps


MUDPT = Recipe(Mudpt)
