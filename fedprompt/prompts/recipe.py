"""What a method is made of; every method's module ends in its recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fedprompt.prompts.head import Head
from fedprompt.prompts.host import Host, Material
from fedprompt.prompts.objectives import CROSS_ENTROPY
from fedprompt.prompts.prompted import PromptedClip

Bank = Literal["clean", "adversarial"]  # training images as they are, or as an attack left them


@dataclass(frozen=True)
class Recipe:
    """A method whose prompts enter the towers.

    Attributes
    ----------
    host
        Makes what owns the prompts and says where they enter.
    form
        Of every matrix, unless prompt.form says otherwise.
    objective
        Of `OBJECTIVES`, unless prompt.objective says otherwise.
    prompted
        How the host's tokens meet the towers.
    bank
        What is trained on; scored are clean images always.
    averaged
        Whether a run ends in an average of its prompts (`fedprompt.prompts.averaging`).
    """

    host: Callable[[Material], Host]
    form: Literal["full", "lowrank"] = "full"
    objective: str = CROSS_ENTROPY
    prompted: type[PromptedClip] = PromptedClip
    bank: Bank = "clean"
    averaged: bool = False


@dataclass(frozen=True)
class HeadRecipe:
    """A method that prompts no tower; the fields mean what a recipe's do.

    Attributes
    ----------
    tied
        Whether what is trained is of use for its own classes only, as a probe is.
    """

    head: Callable[[Material, Sequence[str]], Head]
    form: Literal["full", "lowrank"] = "full"
    bank: Bank = "clean"
    tied: bool = False
