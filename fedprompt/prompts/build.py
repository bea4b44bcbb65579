"""From a name to a prompt method: one line a method."""

from collections.abc import Callable, Sequence

import torch

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.coop import Coop, starting_context
from fedprompt.prompts.forms import Full, LowRank
from fedprompt.prompts.template import Template

Prompt = Coop | Template


def build_prompt(
    config: PromptConfig,
    clip: FrozenClip,
    classes: Sequence[str],
    template: str,
    *,
    shared_basis: bool = False,
    speedups: Speedups | None = None,
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
        Text with ``{}`` once; dip and coop start at the words before it.
    shared_basis
        Freeze A at its seeded start; only B is trained and sent.
    speedups
        Of the text tower; all by default.

    Raises
    ------
    PromptError
        Rank, length or start do not fit each other.
    """
    make = METHODS[config.method]
    return make(config, clip, classes, template, shared_basis, speedups).to(clip.device)


def _dip(
    config: PromptConfig,
    clip: FrozenClip,
    classes: Sequence[str],
    template: str,
    shared_basis: bool,
    speedups: Speedups | None,
) -> Prompt:
    generator = torch.Generator().manual_seed(config.seed)
    start = starting_context(clip, config, template, generator)
    form = LowRank(start, config.rank, config.dropout, generator, freeze_a=shared_basis)
    return Coop(clip, classes, template, form, config, speedups)


def _coop(
    config: PromptConfig,
    clip: FrozenClip,
    classes: Sequence[str],
    template: str,
    shared_basis: bool,  # noqa: ARG001
    speedups: Speedups | None,
) -> Prompt:
    generator = torch.Generator().manual_seed(config.seed)
    form = Full(starting_context(clip, config, template, generator))
    return Coop(clip, classes, template, form, config, speedups)


def _template(
    config: PromptConfig,  # noqa: ARG001
    clip: FrozenClip,
    classes: Sequence[str],
    template: str,
    shared_basis: bool,  # noqa: ARG001
    speedups: Speedups | None,  # noqa: ARG001
) -> Prompt:
    return Template(clip, classes, template)


METHODS: dict[str, Callable[..., Prompt]] = {"dip": _dip, "coop": _coop, "template": _template}
