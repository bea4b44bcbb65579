"""Class vectors of hand-written words (CLIP, arXiv 2103.00020)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError
from fedprompt.prompts.class_texts import class_tokens
from fedprompt.types import TextFeatures


@torch.no_grad()
def zero_shot_vectors(clip: FrozenClip, classes: Sequence[str], *templates: str) -> TextFeatures:
    """Return unit class vectors [classes joint] of a template such as "a photo of a {}.".

    Of several templates: the mean of their unit vectors, made of length one again, as CLIP's
    authors ensemble them.
    """
    tokens = [class_tokens(clip, classes, template) for template in templates]
    found = [F.normalize(clip.encode_text(rows), dim=-1) for rows in tokens]
    return found[0] if len(found) == 1 else F.normalize(torch.stack(found).mean(0), dim=-1)


@lru_cache(maxsize=4)  # the sites of a process share it
@torch.no_grad()
def diverse_vectors(
    clip: FrozenClip, classes: tuple[str, ...], templates: tuple[str, ...]
) -> TextFeatures:
    """Return unit class vectors [classes joint] of the mean feature of several templates.

    The features are averaged as the tower leaves them and the mean is made of length one: a
    template counts by the length of its feature (PromptSRC, arXiv 2307.06948; code).
    """
    total = torch.zeros(())
    for template in templates:
        tokens = class_tokens(clip, classes, template)
        try:
            features = clip.text.encode(tokens, cut=True)  # a sixth of the work
        except BackboneError:  # a tower that takes no prompts
            features = clip.encode_text(tokens)
        total = total.to(features) + features
    return F.normalize(total, dim=-1)
