"""Write the text tower's weights down: no step of training, every number is solved for or drawn.

The tower's width is divided into coordinates:

=======  =======================================================================================
content  what a text shows. Block 0 averages it over all tokens, the projection reads it.
style    how it shows it. Words have none; a tuned context is free to have any.
phase    the position modulo four
level    the rest: it fills every token up to one norm, so that LayerNorm is linear
=======  =======================================================================================

From block 1 on each of the four heads reads the style of its own quarter of the positions, turns
it and adds it to the text's style; the hidden layer then meets content c with style s in pairs,
``GELU(c + s) - GELU(c - s)``: 0 without style, near 2 s for a class on one side of a plane and near
0 for one on the other. So a context moves each class in a way of its own, and words alone leave
the tower exactly linear. An orthogonal matrix mixes the coordinates before they are stored; its
first column is constant and stays empty, for LayerNorm removes it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS = PHASES = 4
LEVEL, PHASE = slice(1, 2), slice(2, 2 + PHASES)  # coordinates; 0 is empty
FAINT = 0.05  # what level and phase, which all texts share, weigh in the joint space
LARGEST = 0.98  # quantile of the tokens' lengths; longer ones are cut to it


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Divide the width: an empty coordinate, level, phase, ``styles``; the rest is content."""

    width: int = 256
    styles: int = 42

    @property
    def style(self) -> slice:
        """Return the coordinates of the style."""
        return slice(PHASE.stop, PHASE.stop + self.styles)

    @property
    def meaning(self) -> slice:
        """Return the coordinates of the content."""
        return slice(self.style.stop, self.width)

    @property
    def content(self) -> int:
        """Return how many coordinates the content has."""
        return self.width - self.style.stop


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strongly each part acts, chosen by what prompts gain on Fashion-MNIST.

    The choice looked at its first 2,000 test images (16 shots, seed 0, 120 steps), so figures on
    those flatter it; publish others.

    Attributes
    ----------
    norm
        Of every token; a random context N(0, 0.02) is 0.32 long.
    content, style
        Gain of what block 0, and what each later head, adds to a text.
    focus
        Logit of a head's own positions over the others.
    gate, output
        Gain of the hidden layer's content, and of what it adds.
    """

    norm: float = 0.5
    content: float = 8.0
    style: float = 0.15
    focus: float = 2.0
    gate: float = 2.0
    output: float = 2.0


class Solved:
    """The weights of a text tower, under open_clip's names.

    Parameters
    ----------
    layout, strength
        Sizes and gains.
    joint
        Width of the joint space, at least that of the content.
    generator
        Draws the mixing matrix, the turns of the style and the planes of the hidden layers.
    """

    def __init__(
        self, layout: Layout, strength: Strength, joint: int, generator: torch.Generator
    ) -> None:
        self.layout, self.strength, self.joint = layout, strength, joint
        self.generator = generator
        mixing = self._drawn(layout.width, layout.width)
        mixing[:, 0] = 1
        self.mixing = torch.linalg.qr(mixing).Q  # [stored coordinate]
        self.root = math.sqrt(layout.width)  # the length of a row behind LayerNorm

    def state(self, layers: int, positions: int) -> dict[str, Tensor]:
        """Return all weights but the token table."""
        state = {"positional_embedding": self._positions(positions)}
        for index in range(layers):
            block = self._averaging() if index == 0 else self._steering()
            state |= {f"transformer.resblocks.{index}.{name}": t for name, t in block.items()}
        width = self.layout.width
        projection = torch.zeros(width, self.joint)
        projection[self.layout.meaning, : self.layout.content] = torch.eye(self.layout.content)
        # no word's content reaches the last axes; the matrix stays invertible
        others = torch.eye(width - self.layout.content, self.joint - self.layout.content)
        others[: self.layout.style.start] *= FAINT
        projection[: len(others), self.layout.content :] = others
        state["text_projection"] = self.mixing @ projection / self.root
        state |= _norm("ln_final", width)
        return state

    def tokens(self, vectors: Tensor) -> Tensor:
        """Return the embeddings ``(tokens, width)`` of token vectors ``(tokens, >= content)``."""
        content = vectors[:, : self.layout.content]
        longest = content.norm(dim=1).quantile(LARGEST)
        content = content * (1 / content.norm(dim=1, keepdim=True).clamp(min=longest))
        rows = torch.zeros(len(content), self.layout.width)
        rows[:, self.layout.meaning] = content
        rows[:, LEVEL] = (1 - content.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        return self.strength.norm * rows @ self.mixing.T

    def neutral(self) -> Tensor:
        """Return the embedding ``(width,)`` of every token without a meaning."""
        return self.strength.norm * self.mixing[:, LEVEL].flatten()

    def _positions(self, count: int) -> Tensor:
        rows = torch.zeros(count, self.layout.width)
        for position in range(1, count):  # 0 is the start token's
            rows[position, PHASE.start + (position - 1) % PHASES] = 1
        return self.strength.norm / 2 * rows @ self.mixing.T

    def _averaging(self) -> dict[str, Tensor]:
        """Block 0: every token is read alike, and its content is added."""
        width, size = self.layout.width, self.layout.content
        attention, output = torch.zeros(3 * width, width), torch.zeros(width, width)
        values = slice(2 * width, 2 * width + size)
        attention[values, self.layout.meaning] = torch.eye(size)
        output[self.layout.meaning, :size] = self.strength.content / self.root * torch.eye(size)
        silent = torch.zeros(4 * width, width)
        return self._block(attention, torch.zeros(3 * width), output, silent, silent.T)

    def _steering(self) -> dict[str, Tensor]:
        """Make a later block: the context's style is read, and met with the text's content."""
        width, strength, layout = self.layout.width, self.strength, self.layout
        style, head, size = layout.style, width // HEADS, layout.styles
        attention, bias = torch.zeros(3 * width, width), torch.zeros(3 * width)
        output = torch.zeros(width, width)
        phase = self.root * 0.5 / math.sqrt(1.25)  # of an untouched token, behind LayerNorm
        for number in range(HEADS):
            first = number * head
            bias[first] = strength.focus * math.sqrt(head) / phase
            attention[width + first, PHASE.start + number] = 1
            attention[2 * width + first : 2 * width + first + size, style] = torch.eye(size)
            turn = torch.linalg.qr(self._drawn(size, size)).Q
            output[style, first : first + size] = strength.style / self.root * turn
        pairs = 2 * width
        planes, ways = self._directions(pairs, layout.content), self._directions(pairs, size)
        gate = torch.zeros(2, pairs, width)
        gate[..., layout.meaning] = strength.gate * planes
        gate[0, :, style], gate[1, :, style] = ways, -ways
        target = strength.output / math.sqrt(pairs) * self._directions(pairs, layout.content)
        sway = torch.zeros(2, pairs, width)
        sway[0, :, layout.meaning], sway[1, :, layout.meaning] = target, -target
        return self._block(attention, bias, output, gate.flatten(0, 1), sway.flatten(0, 1).T)

    def _block(
        self, attention: Tensor, bias: Tensor, output: Tensor, widen: Tensor, narrow: Tensor
    ) -> dict[str, Tensor]:
        """Mix the coordinates that are read and written, and add what is zero."""
        width = self.layout.width
        return {
            "attn.in_proj_weight": attention @ self.mixing.T,
            "attn.in_proj_bias": bias,
            "attn.out_proj.weight": self.mixing @ output,
            "attn.out_proj.bias": torch.zeros(width),
            "mlp.c_fc.weight": widen @ self.mixing.T,
            "mlp.c_fc.bias": torch.zeros(4 * width),
            "mlp.c_proj.weight": self.mixing @ narrow,
            "mlp.c_proj.bias": torch.zeros(width),
            **_norm("ln_1", width),
            **_norm("ln_2", width),
        }

    def _drawn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _directions(self, count: int, size: int) -> Tensor:
        return F.normalize(self._drawn(count, size), dim=1)


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
