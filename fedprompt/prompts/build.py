"""From a configuration to a prompt at its start."""

import importlib
from collections.abc import Sequence
from functools import cache

import torch

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.forms import form_maker
from fedprompt.prompts.headed import HeadedClip
from fedprompt.prompts.host import Material
from fedprompt.prompts.methods import METHODS, UNTRAINED, ZERO_SHOT
from fedprompt.prompts.mixed import Mixed
from fedprompt.prompts.objectives import OBJECTIVES
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.recipe import Bank, HeadRecipe, Recipe
from fedprompt.prompts.template import ENSEMBLE_TEMPLATES, Template
from fedprompt.settings.prompt import CoopConfig, PromptConfig, PromptedConfig

Prompt = PromptedClip | HeadedClip | Template | Mixed
PRODUCT = "product"


@cache
def recipe_of(method: str) -> Recipe | HeadRecipe:
    """Return the recipe of a trained method."""
    module, _, name = METHODS[method].recipe.partition(":")
    recipe: Recipe | HeadRecipe = getattr(importlib.import_module(module), name)
    return recipe


def build_prompt(
    config: PromptConfig,
    clip: FrozenClip,
    classes: Sequence[str],
    template: str,
    *,
    rule: str = PRODUCT,
    speedups: Speedups | None = None,
    any_start: bool = False,
) -> Prompt:
    """Return the prompt method that a configuration names, at its start.

    Parameters
    ----------
    config
        The ``[prompt]`` section.
    clip
        The frozen CLIP.
    classes
        Ordered class names.
    template
        Text with ``{}`` once; text prompts start at the words before it.
    rule
        By which prompts are merged, ``server.rule``: what of a low-rank matrix is trained and
        sent. ``shared-basis`` freezes every A at its start; ``fresh-basis`` takes another frozen A
        at each turn, and adds up what the turns learn.
    speedups
        Of the text tower; all by default.
    any_start
        Let the start be any where its images are not here: it will be overwritten.

    Raises
    ------
    PromptError
        Rank, length, depth, start or objective do not fit each other.
    DataError
        The start's images cannot be read.
    """
    if config.method in UNTRAINED:
        templates = (template,) if config.method == ZERO_SHOT else ENSEMBLE_TEMPLATES
        return Template(clip, classes, *templates).to(clip.device)
    recipe = recipe_of(config.method)
    generator = torch.Generator().manual_seed(config.seed)
    form = form_maker(
        config.form or recipe.form,
        config.rank,
        config.dropout,
        freeze_a=rule == "shared-basis",
        fresh=rule == "fresh-basis",
    )
    material = Material(
        clip=clip,
        config=config,
        template=template,
        form=form,
        generator=generator,
        classes=len(classes),
        any_start=any_start,
    )
    if isinstance(recipe, HeadRecipe):
        return HeadedClip(recipe.head(material, classes), config).to(clip.device)
    config = PromptedConfig.of(config)
    host, objective = recipe.host(material), OBJECTIVES[config.objective or recipe.objective]
    prompt = recipe.prompted(clip, classes, template, host, objective, config, speedups)
    return prompt.to(clip.device)


def is_tied(config: PromptConfig) -> bool:
    """Return whether what is trained is of use for its own classes only."""
    if config.method in UNTRAINED:
        return False
    recipe = recipe_of(config.method)
    own = isinstance(config, CoopConfig) and config.class_specific
    return own or (isinstance(recipe, HeadRecipe) and recipe.tied)


def bank_of(method: str) -> Bank:
    """Return what a method trains on of each image."""
    return "clean" if method in UNTRAINED else recipe_of(method).bank


def is_averaged(method: str) -> bool:
    """Return whether a run of a method ends in an average of its prompts."""
    recipe = None if method in UNTRAINED else recipe_of(method)
    return isinstance(recipe, Recipe) and recipe.averaged
