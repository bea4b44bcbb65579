"""Encode a fixed list of classes under a changing context, as fast as the tower allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import TextPrompts, leading_places
from fedprompt.backbone.shared_prefix import SharedPrefix
from fedprompt.types import Places, TextFeatures, TextTokens, Tokens

ClassEncoder = Callable[[TextTokens], TextFeatures]
Part = Int[Tensor, "chunk positions"]
_WHOLE = 8  # times the tokens that a class has on the general path


@dataclass(frozen=True, kw_only=True)
class Speedups:
    """Switch the exact speed-ups of the text tower; the tests compare each with the plain one."""

    cut: bool = True  # 2: nothing behind the longest end-of-text
    share_prefix: bool = True  # 3: start token and context once for all classes
    share_suffixes: bool = True  # 4: names that begin alike share what they share
    chunk: int = 256  # 4: classes at a time, recomputed in the backward pass; 0 = all at once


PLAIN = Speedups(cut=False, share_prefix=False, share_suffixes=False, chunk=0)


def class_encoder(
    clip: FrozenClip, tokens: Tokens, places: Places | int, speedups: Speedups | None = None
) -> ClassEncoder:
    """Return a function from context [layers length width] to class features [classes joint].

    Towers that are not causal, or not built of plain blocks, take the general path: every token
    of every class, in smaller chunks.

    Parameters
    ----------
    clip
        The frozen CLIP.
    tokens
        Token ids, one row a class.
    places
        Which row of the context stands where, -1 = a word; or the length of a context that stands
        in front of all.
    speedups
        All by default.
    """
    chosen = speedups or Speedups()
    if isinstance(places, int):
        places = leading_places(tokens, places, clip.first_word)
    if chosen.share_prefix and clip.first_word == 1 and SharedPrefix.fits(clip.text):
        return SharedPrefix(
            clip.text, tokens, places, share=chosen.share_suffixes, chunk=chosen.chunk
        )

    def encode(part: Part, own: Part, context: TextTokens) -> TextFeatures:
        prompts = TextPrompts(tokens=context, places=own)
        return clip.text.encode(part, prompts, cut=chosen.cut)

    size = math.ceil(chosen.chunk / _WHOLE) or len(tokens)
    parts = list(zip(tokens.split(size), places.split(size), strict=True))

    def encode_all(context: TextTokens) -> TextFeatures:
        if len(parts) == 1:
            return encode(*parts[0], context)
        return torch.cat([checkpoint(encode, *p, context, use_reentrant=False) for p in parts])

    return encode_all
