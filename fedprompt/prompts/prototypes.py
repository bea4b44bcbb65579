"""Prototypes: a few vectors that stand for many tokens (SPT, arXiv 2402.02382; code).

Four ways to pick n of them: random sampling, the mean or the maximum of each of n windows of equal
length, or the centres of n clusters. Ours: the windows run over the tokens of all images in order,
and what is picked is rounded to the numbers of float16, half the digits that could differ from one
machine to the next (`fedprompt/backbone/patch_tokens.py`).
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from fedprompt.backbone.patch_tokens import LayerTokens
from fedprompt.clusters import centres
from fedprompt.errors import PromptError
from fedprompt.types import Context

Picked = Float64[Tensor, "length vision_width"]


def pick(how: str, tokens: LayerTokens, length: int, seed: int) -> Context:
    """Return ``length`` prototypes [length width] of tokens.

    Raises
    ------
    PromptError
        There are fewer tokens than that.
    """
    if len(tokens) < length:
        raise PromptError(
            f"{len(tokens)} patch tokens make no {length} prototypes; lower prompt.tokens, or give "
            "more images in prompt.public"
        )
    return rounded(PICKS[how](tokens, length, seed))


def rounded(tokens: Picked) -> Context:
    """Return float32 tokens of as many digits as float16 has."""
    return tokens.half().float()


def _random(tokens: LayerTokens, length: int, seed: int) -> Picked:
    generator = torch.Generator().manual_seed(seed)
    return tokens[torch.randperm(len(tokens), generator=generator)[:length]]


def _mean(tokens: LayerTokens, length: int, _: int) -> Picked:
    return torch.stack([window.mean(0) for window in tokens.tensor_split(length)])


def _max(tokens: LayerTokens, length: int, _: int) -> Picked:
    return torch.stack([window.amax(0) for window in tokens.tensor_split(length)])


def _kmeans(tokens: LayerTokens, length: int, seed: int) -> Picked:
    found = centres(tokens.numpy(), np.ones(len(tokens)), length, seed)
    return torch.from_numpy(found)


PICKS: dict[str, Callable[[LayerTokens, int, int], Picked]] = {
    "kmeans": _kmeans,
    "random": _random,
    "mean": _mean,
    "max": _max,
}
