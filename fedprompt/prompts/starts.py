"""Where prompt matrices start: at words, or at random."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.forms import SPREAD
from fedprompt.prompts.host import Material
from fedprompt.prompts.words import Layout
from fedprompt.settings.prompt import ContextConfig, CoopConfig, DeepConfig, VptConfig
from fedprompt.types import Context

RANDOM = "random"  # the value of prompt.init that asks for no words
Start = Callable[[Material, range, int], Sequence[Context]]  # of some blocks, and of a length


@dataclass(frozen=True, eq=False)
class TextStart:
    """Hold where a text prompt starts, P0 [length width], and where it stands.

    A class-specific prompt has the rows of all classes one after the other.
    """

    matrix: Context
    layout: Layout


def text_start(material: Material) -> TextStart:
    """Return the embeddings of the starting words, or N(0, 0.02), with their layout.

    With ``prompt.tokens`` = n below the number of the words' tokens the first n are tuned, and the
    words behind them stay as words (MaPLe, arXiv 2210.03117; code).

    Raises
    ------
    PromptError
        There are no words, the words are fewer tokens than asked for, the last tuned token ends
        within a word, or a random start has no length.
    """
    clip, config = material.clip, ContextConfig.of(material.config)
    words = config.init or material.template.partition("{}")[0].strip()
    copies, layout = 1, partial(Layout, name_position="end", class_specific=False)
    if isinstance(config, CoopConfig):
        copies = material.classes if config.class_specific else 1
        layout = partial(
            Layout, name_position=config.name_position, class_specific=config.class_specific
        )
    if words == RANDOM:
        if not config.tokens:
            raise PromptError(
                f"prompt.init = {RANDOM} needs a length: set prompt.tokens, such as 4"
            )
        matrix = drawn(copies * config.tokens, clip.text.width, material)
        return TextStart(matrix, layout(config.tokens))
    start = clip.embed_words(words) if words else clip.text.embedding[:0]
    length = config.tokens or len(start)
    if not 0 < length <= len(start):
        raise PromptError(
            f"the starting words {words!r} are {len(start)} tokens, prompt.tokens is "
            f"{config.tokens}; set prompt.tokens = 0 for all of them, a number below, other words "
            f"in prompt.init, or prompt.init = {RANDOM}"
        )
    rest = _words_behind(clip, words, length)
    if set("{}") & set(rest):
        raise PromptError(f"prompt.init = {words!r} holds braces; give words alone")
    return TextStart(start[:length].repeat(copies, 1), layout(length, rest))


def _words_behind(clip: FrozenClip, words: str, length: int) -> str:
    """Return what follows the words that are the first ``length`` tokens."""
    spoken = words.split()
    ends = [len(clip.embed_words(" ".join(spoken[: i + 1]))) for i in range(len(spoken))]
    if length not in ends:
        raise PromptError(
            f"the words {words!r} end behind tokens {', '.join(map(str, ends))}, prompt.tokens = "
            f"{length} ends within one; set one of these numbers"
        )
    return " ".join(spoken[ends.index(length) + 1 :])


def drawn(length: int, width: int, material: Material) -> Context:
    """Return a matrix of N(0, 0.02), drawn on the CPU so that every machine draws the same."""
    values = SPREAD * torch.randn(length, width, generator=material.generator)
    return values.to(material.clip.device)


def deep_text_starts(material: Material, depth: int) -> tuple[list[Context], Layout]:
    """Return [length text_width] for each of ``depth`` text blocks: `text_start`, then N(0, 0.02).

    And the layout, which is that of all blocks.

    Raises
    ------
    PromptError
        As `text_start` does.
    """
    start, width = text_start(material), material.clip.text.width
    length = start.layout.length
    deeper = (drawn(length, width, material) for _ in range(depth - 1))
    return [start.matrix, *deeper], start.layout


def drawn_visuals(material: Material, layers: range, length: int) -> Sequence[Context]:
    """Return a matrix of N(0, 0.02) [length vision_width] for each block of the image tower."""
    return [drawn(length, material.clip.image.width, material) for _ in layers]


def depth_of(config: DeepConfig | VptConfig, usual: int, blocks: int) -> int:
    """Return how many blocks are prompted: ``prompt.depth``, or the method's usual depth.

    Raises
    ------
    PromptError
        The tower has fewer blocks than were asked for, or none behind ``prompt.first_layer``.
    """
    asked = config.depth
    if blocks < 1:
        first = config.first_layer if isinstance(config, VptConfig) else 0
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
