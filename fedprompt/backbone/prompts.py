"""How prompt tokens enter a frozen tower: as arguments, never as edits of the tower."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fedprompt.types import Context


@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Replace the embeddings of the first ``length`` words of every class by ``context``.

    The text of each class must start with ``length`` placeholder words (CoOp, arXiv 2109.01134).
    """

    context: Context
    start: int = 1  # position of the first word: 0 in towers without a start token (SigLIP)


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """Append tokens behind the patches; layer i > 0 overwrites them (VPT-Deep, arXiv 2203.12119).

    ``tokens`` is [layers length width]; the first layer's enter before ``ln_pre`` and, where there
    is no further layer (VPT-Shallow), they propagate.
    """

    tokens: Float[Tensor, "layers length vision_width"]
