"""How prompt tokens enter a frozen tower: as arguments, never as edits of the tower."""

from dataclasses import dataclass

import torch

from fedprompt.types import Places, TextTokens, Tokens, VisualTokens

NO_PLACE = -1  # of a word that stays


def leading_places(tokens: Tokens, length: int, start: int = 1) -> Places:
    """Return places for a context of ``length`` in front of every class, from ``start`` on."""
    places = torch.full_like(tokens, NO_PLACE)
    places[:, start : start + length] = torch.arange(length, device=tokens.device)
    return places


@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Replace some words of every class; block i > 0 overwrites them (IVLP, MaPLe).

    Attributes
    ----------
    tokens
        [layers length width]. The first matrix takes the place of the embeddings of the words,
        which must be placeholders (CoOp, arXiv 2109.01134), and gets their positions; the others
        take the place of what entered their block.
    places
        Which row of the matrix stands at each position of each class, -1 where a word stays. None =
        row i at position 1 + i, behind the start token.
    """

    tokens: TextTokens
    places: Places | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """Append tokens behind the patches; each further block overwrites them (VPT, arXiv 2203.12119).

    ``tokens`` is [layers length width], for the blocks ``first``, ``first`` + 1, ... The matrix of
    block 0 enters before ``ln_pre``. Behind the last prompted block the tokens propagate: with one
    matrix this is VPT-Shallow.
    """

    tokens: VisualTokens
    first: int = 0
