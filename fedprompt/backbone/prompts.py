"""How prompt tokens enter a frozen tower: as arguments, never as edits of the tower."""

from dataclasses import dataclass

from fedprompt.types import TextTokens, VisualTokens


@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Replace the first words of every class; block i > 0 overwrites them (IVLP, MaPLe).

    ``tokens`` is [layers length width]. The first matrix takes the place of the embeddings of the
    first ``length`` words, which must be placeholders (CoOp, arXiv 2109.01134), and gets their
    positions; the others take the place of what entered their block.
    """

    tokens: TextTokens
    start: int = 1  # position of the first word: 0 in towers without a start token (SigLIP)


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """Append tokens behind the patches; each further block overwrites them (VPT, arXiv 2203.12119).

    ``tokens`` is [layers length width], for the blocks ``first``, ``first`` + 1, ... The matrix of
    block 0 enters before ``ln_pre``. Behind the last prompted block the tokens propagate: with one
    matrix this is VPT-Shallow.
    """

    tokens: VisualTokens
    first: int = 0
