"""Where prompt matrices start: at words, or at random."""

from collections.abc import Callable, Sequence

import torch

from fedprompt.errors import PromptError
from fedprompt.prompts.forms import SPREAD
from fedprompt.prompts.host import Material
from fedprompt.types import Context

RANDOM = "random"  # the value of prompt.init that asks for no words
Start = Callable[[Material, range, int], Sequence[Context]]  # of some blocks, and of a length


def text_start(material: Material) -> Context:
    """Return P0 [length width]: the embeddings of the starting words, or N(0, 0.02).

    Raises
    ------
    PromptError
        There are no words, the words are not as many tokens as asked for, or a random start has
        no length.
    """
    clip, config = material.clip, material.config
    words = config.init or material.template.partition("{}")[0].strip()
    if words == RANDOM:
        if not config.tokens:
            raise PromptError(
                f"prompt.init = {RANDOM} needs a length: set prompt.tokens, such as 4"
            )
        return drawn(config.tokens, clip.text.width, material)
    start = clip.embed_words(words) if words else clip.text.embedding[:0]
    if not len(start) or config.tokens not in (0, len(start)):
        raise PromptError(
            f"the starting words {words!r} are {len(start)} tokens, prompt.tokens is "
            f"{config.tokens}; set prompt.tokens = 0, other words in prompt.init, or "
            f"prompt.init = {RANDOM}"
        )
    return start


def drawn(length: int, width: int, material: Material) -> Context:
    """Return a matrix of N(0, 0.02), drawn on the CPU so that every machine draws the same."""
    values = SPREAD * torch.randn(length, width, generator=material.generator)
    return values.to(material.clip.device)


def deep_text_starts(material: Material, depth: int) -> list[Context]:
    """Return [length text_width] for each of ``depth`` text blocks: `text_start`, then N(0, 0.02).

    Raises
    ------
    PromptError
        As `text_start` does.
    """
    first, width = text_start(material), material.clip.text.width
    return [first, *(drawn(len(first), width, material) for _ in range(depth - 1))]


def drawn_visuals(material: Material, layers: range, length: int) -> Sequence[Context]:
    """Return a matrix of N(0, 0.02) [length vision_width] for each block of the image tower."""
    return [drawn(length, material.clip.image.width, material) for _ in layers]


def depth_of(material: Material, usual: int, blocks: int) -> int:
    """Return how many blocks are prompted: ``prompt.depth``, or the method's usual depth.

    Raises
    ------
    PromptError
        The tower has fewer blocks than were asked for, or none behind ``prompt.first_layer``.
    """
    asked = material.config.depth
    if blocks < 1:
        first = material.config.first_layer
        raise PromptError(
            f"prompt.first_layer = {first} leaves no block of the image tower to prompt; its last "
            f"block is {first + blocks - 1}: lower prompt.first_layer"
        )
    if asked > blocks:
        raise PromptError(
            f"prompt.depth = {asked}, but only {blocks} blocks can be prompted; lower it, or set "
            "prompt.depth = 0 for the method's own depth"
        )
    return asked or min(usual, blocks)
