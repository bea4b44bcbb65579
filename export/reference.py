"""What torch answers: the reference of every parity measurement."""

import numpy as np
import torch
from torch.nn.functional import normalize

from export.types import Answers, ClassVectors, Pictures
from fedprompt.backbone.clip import FrozenClip

_BATCH = 32  # images at a time


def reference_logits(clip: FrozenClip, class_vectors: ClassVectors, images: Pictures) -> Answers:
    """Return torch's logits [images classes] of resized images: uint8 [images size size 3]."""
    classes = torch.from_numpy(class_vectors).to(clip.device)
    found = []
    with torch.inference_mode():
        for begin in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(images[begin : begin + _BATCH])
            features = normalize(clip.encode_image(clip.normalise(pixels)).float(), dim=-1)
            logits = features @ classes.T * clip.logit_scale + clip.logit_bias
            found.append(logits.cpu().numpy())
    return np.concatenate(found)
