"""Prototypes: a few vectors that stand for many tokens (SPT, arXiv 2402.02382; code).

Four ways to pick n of them: random tokens, the mean or the maximum of windows of tokens, or the
centres of n clusters of all tokens. A window lies within one image: n - 1 windows take w = L //
(n - 1) of its L tokens each, in order, and one more the last L mod w, or all of them where that is
zero. Of the images x n pooled windows n are drawn.

Ours: what is picked is rounded to the numbers of float16, half the digits that could differ from
one machine to the next (`fedprompt/backbone/patch_tokens.py`); for n = 1 the window is the image.
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

Vectors = Float64[Tensor, "vectors vision_width"]
Window = Float64[Tensor, "images _ vision_width"]
Picked = Float64[Tensor, "length vision_width"]


def pick(how: str, tokens: LayerTokens, length: int, seed: int) -> Context:
    """Return ``length`` prototypes [length width] of the tokens of some images.

    Raises
    ------
    PromptError
        There are fewer tokens than that, or an image has too few for its windows.
    """
    images, patches, _ = tokens.shape
    if images * patches < length:
        raise PromptError(
            f"{images * patches} patch tokens make no {length} prototypes; lower prompt.tokens, or "
            "give more images in prompt.public"
        )
    return rounded(PICKS[how](tokens, length, seed))


def rounded(tokens: Picked) -> Context:
    """Return float32 tokens of as many digits as float16 has."""
    return tokens.half().float()


def windows(tokens: LayerTokens, length: int) -> list[Window]:
    """Return each image's ``length`` windows, one tensor a place: all images' first windows first.

    Raises
    ------
    PromptError
        An image has fewer tokens than windows but the last.
    """
    patches = tokens.shape[1]
    if length == 1:
        return [tokens]
    if not (size := patches // (length - 1)):
        raise PromptError(
            f"an image has {patches} patch tokens, too few for {length - 1} windows; set "
            f"prompt.tokens to {patches + 1} or less, or prompt.start to kmeans or random"
        )
    rest = patches % size
    equal = [tokens[:, size * i : size * (i + 1)] for i in range(length - 1)]
    return [*equal, tokens[:, -rest:] if rest else tokens]


def _random(tokens: LayerTokens, length: int, seed: int) -> Picked:
    return _drawn(tokens.flatten(0, 1), length, seed)


def _mean(tokens: LayerTokens, length: int, seed: int) -> Picked:
    pooled = [window.mean(1) for window in windows(tokens, length)]
    return _drawn(torch.cat(pooled), length, seed)


def _max(tokens: LayerTokens, length: int, seed: int) -> Picked:
    pooled = [window.amax(1) for window in windows(tokens, length)]
    return _drawn(torch.cat(pooled), length, seed)


def _drawn(vectors: Vectors, length: int, seed: int) -> Picked:
    """Return some of the vectors, none twice."""
    generator = torch.Generator().manual_seed(seed)
    return vectors[torch.randperm(len(vectors), generator=generator)[:length]]


def _kmeans(tokens: LayerTokens, length: int, seed: int) -> Picked:
    points = tokens.flatten(0, 1).numpy()
    found = centres(points, np.ones(len(points)), length, seed)
    return torch.from_numpy(found)


PICKS: dict[str, Callable[[LayerTokens, int, int], Picked]] = {
    "kmeans": _kmeans,
    "random": _random,
    "mean": _mean,
    "max": _max,
}
