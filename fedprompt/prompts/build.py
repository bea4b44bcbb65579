"""From a name to a prompt method: one line a method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.adapt import Adapt
from fedprompt.prompts.advpt import advpt
from fedprompt.prompts.cocoop import Cocoop
from fedprompt.prompts.coop import Coop
from fedprompt.prompts.domain_prompts import DomainPrompts
from fedprompt.prompts.fedclip import FedClip
from fedprompt.prompts.forms import form_maker
from fedprompt.prompts.head import Head
from fedprompt.prompts.headed import HeadedClip
from fedprompt.prompts.host import Host, Material
from fedprompt.prompts.ivlp import Ivlp
from fedprompt.prompts.linear import Linear
from fedprompt.prompts.maple import Maple
from fedprompt.prompts.mixed import Mixed
from fedprompt.prompts.mudpt import Mudpt
from fedprompt.prompts.objectives import CROSS_ENTROPY, OBJECTIVES
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.sdpt import Sdpt
from fedprompt.prompts.spt import spt
from fedprompt.prompts.template import ENSEMBLE_TEMPLATES, Template
from fedprompt.prompts.vpt import Vpt
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.section import Scalar

Prompt = PromptedClip | HeadedClip | Template | Mixed
PRODUCT = "product"
Bank = Literal["clean", "adversarial"]  # training images as they are, or as an attack left them


@dataclass(frozen=True)
class Recipe:
    """Say what a method is made of: where its prompts enter, their form, and how it is trained."""

    host: Callable[[Material], Host]
    form: Literal["full", "lowrank"] = "full"  # unless prompt.form says otherwise
    objective: str = CROSS_ENTROPY  # of OBJECTIVES, unless prompt.objective says otherwise
    prompted: type[PromptedClip] = PromptedClip  # how the host's tokens meet the towers
    bank: Bank = "clean"  # what is trained on; scored are clean images always
    source: str = ""  # the paper's id, for `fedprompt methods`; a test wants one for each
    tied: bool = False  # what is trained is of use for its own classes only, as a probe is
    placed: bool = False  # takes prompt.name_position and prompt.class_specific
    averaged: bool = False  # a run ends in an average of its prompts (fedprompt.prompts.averaging)
    rule: str = PRODUCT  # how its low-rank form is merged, unless server.rule says otherwise


@dataclass(frozen=True)
class HeadRecipe:
    """Say what a method is made of that prompts no tower; the fields mean what a recipe's do."""

    head: Callable[[Material, Sequence[str]], Head]
    form: Literal["full", "lowrank"] = "full"
    bank: Bank = "clean"
    source: str = ""
    tied: bool = False
    rule: str = PRODUCT


METHODS: dict[str, Recipe | HeadRecipe] = {
    "dip": Recipe(Coop, form="lowrank", source="arXiv 2312.10813", placed=True, rule="fresh-basis"),
    "dip-fixed": Recipe(Coop, form="lowrank", source="arXiv 2312.10813", placed=True),
    "coop": Recipe(Coop, source="arXiv 2109.01134", placed=True),
    "vpt": Recipe(Vpt, source="arXiv 2203.12119"),
    "ivlp": Recipe(Ivlp, source="arXiv 2210.03117"),  # MaPLe's baseline
    "maple": Recipe(Maple, source="arXiv 2210.03117"),
    "mudpt": Recipe(Mudpt, source="arXiv 2306.11400"),
    "sdpt": Recipe(Sdpt, source="arXiv 2407.11414"),
    "kgcoop": Recipe(Coop, objective="kgcoop", source="arXiv 2303.13283", placed=True),
    "prograd": Recipe(Coop, objective="prograd", source="arXiv 2205.14865", placed=True),
    "promptsrc": Recipe(Ivlp, objective="promptsrc", averaged=True, source="arXiv 2307.06948"),
    "spt": Recipe(spt, source="arXiv 2402.02382"),
    "advpt": Recipe(advpt, bank="adversarial", source="arXiv 2311.11261", placed=True),
    "adapt": Recipe(
        DomainPrompts, prompted=Adapt, objective="alignment", source="arXiv 2310.03103"
    ),
    "cocoop": HeadRecipe(Cocoop, source="arXiv 2203.05557"),
    "linear": HeadRecipe(Linear, source="arXiv 2103.00020", tied=True),
    "fedclip": HeadRecipe(FedClip, source="arXiv 2302.13485"),
}
ZERO_SHOT, ENSEMBLE = "template", "ensemble"
UNTRAINED = (ZERO_SHOT, ENSEMBLE)  # by hand-written words
ZERO_SHOT_SOURCE = "arXiv 2103.00020"


def rule_of(settings: Mapping[str, Scalar]) -> str:
    """Return ``server.rule`` or, where it is left empty, the rule of the method."""
    recipe = METHODS.get(str(settings.get("prompt.method", "dip")))
    return str(settings.get("server.rule", "")) or (recipe.rule if recipe else PRODUCT)


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
        By which prompts are merged (`rule_of`): it says what of a low-rank matrix is trained and
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
    recipe = METHODS[config.method]
    _check_placed(config, recipe)
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
        _check_objective(config)
        return HeadedClip(recipe.head(material, classes), config).to(clip.device)
    host, objective = recipe.host(material), OBJECTIVES[config.objective or recipe.objective]
    prompt = recipe.prompted(clip, classes, template, host, objective, config, speedups)
    return prompt.to(clip.device)


def _check_objective(config: PromptConfig) -> None:
    if config.objective not in ("", CROSS_ENTROPY):
        raise PromptError(
            f"prompt.objective = {config.objective} is about features that prompts change; "
            f"{config.method} has a head behind them, and is trained by cross-entropy: leave it out"
        )


def _check_placed(config: PromptConfig, recipe: Recipe | HeadRecipe) -> None:
    if config.name_position == "end" and not config.class_specific:
        return
    if not (isinstance(recipe, Recipe) and recipe.placed):
        able = [name for name, r in METHODS.items() if isinstance(r, Recipe) and r.placed]
        raise PromptError(
            f"prompt.name_position = {config.name_position} and prompt.class_specific = "
            f"{str(config.class_specific).lower()} are for {', '.join(able)}; prompt.method = "
            f"{config.method} takes end and false"
        )


def is_tied(config: PromptConfig) -> bool:
    """Say whether what is trained is of use for its own classes only."""
    recipe = METHODS.get(config.method)
    return recipe is not None and (recipe.tied or config.class_specific)


def bank_of(method: str) -> Bank:
    """Return what a method trains on of each image."""
    return METHODS[method].bank if method in METHODS else "clean"


def is_averaged(method: str) -> bool:
    """Say whether a run of a method ends in an average of its prompts."""
    recipe = METHODS.get(method)
    return isinstance(recipe, Recipe) and recipe.averaged
