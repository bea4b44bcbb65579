"""Artefacts of prompts that were moved off their start, and the same prompt for other classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config

CLASSES = ("great grey owl", "tench", "maple_tree")
TEMPLATE = "a photo of a {}, outdoors."


def tuned(
    clip: FrozenClip,
    method: str = "dip",
    *,
    seed: int = 0,
    template: str = TEMPLATE,
    classes: tuple[str, ...] = CLASSES,
    **settings: object,
) -> Artefact:
    """Return a prompt's artefact; ``seed`` decides how it was moved."""
    config = prompt_config(method=method, **settings)  # type: ignore[arg-type]
    prompt = build_prompt(config, clip, classes, template, any_start=True)
    stir(prompt, seed)
    return to_artefact(clip, prompt, classes, template, round=1, seed=0)


def stir(prompt: Prompt, seed: int = 0, spread: float = 0.3) -> None:
    """Move a prompt off its start: noise on every array that it sends."""
    prompt.load_arrays(stirred(prompt.arrays(), seed, spread))


def stirred(arrays: PromptState, seed: int = 0, spread: float = 0.3) -> PromptState:
    """Return arrays with noise on them."""
    noise = np.random.default_rng(seed)
    return PromptState({n: a + noise.normal(scale=spread, size=a.shape) for n, a in arrays.items()})


def placeholder_texts(names: Sequence[str], template: str, length: int) -> list[str]:
    """Return "X X ... NAME REST" for each class: each X is one token, to be replaced."""
    rest = template.partition("{}")[2]
    return ["X " * length + name + rest for name in names]


def serving(artefact: Artefact, *classes: str) -> Artefact:
    """Return the same prompt with other classes, as torch would serve them."""
    return replace(artefact, metadata=artefact.metadata | {"classes": list(classes)})
