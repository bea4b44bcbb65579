"""Class vectors of hand-written words (CLIP, arXiv 2103.00020)."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
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
