"""What a host is: it owns prompt matrices and says which tokens enter which tower."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.forms import Form, FormMaker
from fedprompt.prompts.words import Layout
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import TextTokens, VisualTokens


@dataclass(frozen=True, eq=False, kw_only=True)
class Entering:
    """Hold the tokens that enter the towers; None leaves a tower alone."""

    text: TextTokens | None = None
    visual: VisualTokens | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Material:
    """Hold what hosts are built from.

    Attributes
    ----------
    clip
        The frozen CLIP: widths, starting words, depths.
    config
        The ``[prompt]`` section.
    template
        Text with ``{}``; text prompts start at the words before it.
    form
        Gives each matrix its form, from its start.
    generator
        Draws random starts.
    classes
        Number of classes, for a context that each has of its own.
    any_start
        What is trained will be overwritten, by an artefact or a server: what a start needs and is
        not here need not be found.
    """

    clip: FrozenClip
    config: PromptConfig
    template: str
    form: FormMaker
    generator: torch.Generator
    classes: int
    any_start: bool = False


@runtime_checkable
class Host(Protocol):
    """Own the matrices of a prompt.

    ``layout`` says where the text prompt stands in the text of a class, None where the class
    vectors stay; ``first_layer`` is the first prompted block of the image tower, or None.
    """

    first_layer: int | None

    @property
    def layout(self) -> Layout | None:
        """Return where the text prompt stands in the text of a class."""

    def __call__(self, generator: torch.Generator | None = None) -> Entering:
        """Return the tokens; with a generator as in training."""

    def matrices(self) -> Sequence[Form]:
        """Return the prompt matrices, whose singular values DIP's loss terms are about."""

    def describe(self) -> dict[str, Any]:
        """Return the settings that rebuild the host."""
