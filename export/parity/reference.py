"""What torch answers, by its plain towers: the reference of every parity measurement."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.fold.constants import Constants
from export.fold.types import Answers, Pictures
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.types import Images

_BATCH = 32  # images at a time


def reference_logits(clip: FrozenClip, constants: Constants, images: Pictures) -> Answers:
    """Return torch's logits [images classes] of resized images: uint8 [images size size 3]."""
    prompts = constants.prompts(clip.device)
    adapter = None if constants.adapter is None else constants.adapter.on(clip.device)
    bias = 0 if constants.bias is None else torch.from_numpy(constants.bias).to(clip.device)
    found = []
    with torch.inference_mode():
        for begin in range(0, len(images), _BATCH):
            pixels = clip.normalise(torch.from_numpy(images[begin : begin + _BATCH]))
            features, classes = _encode(clip, constants, pixels, prompts)
            features = features if adapter is None else adapter(features)
            cosines = (features.unsqueeze(1) @ classes.mT).squeeze(1)
            logits = cosines * clip.logit_scale + clip.logit_bias + bias
            found.append(logits.cpu().numpy())
    return np.concatenate(found)


def _encode(
    clip: FrozenClip, constants: Constants, images: Images, prompts: ImagePrompts | None
) -> tuple[Tensor, Tensor]:
    """Return unit features [batch joint], and class vectors [1 or batch, classes joint]."""
    if constants.mixture is None or prompts is None:
        features = F.normalize(clip.encode_image(images, prompts).float(), dim=-1)
        return features, torch.from_numpy(constants.class_vectors).to(clip.device).unsqueeze(0)
    entering: list[Tensor] = []
    last = clip.image.blocks[-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    try:
        features = F.normalize(clip.encode_image(images, prompts).float(), dim=-1)
    finally:
        hook.remove()
    weights = _domain_weights(last, entering[0], len(constants.mixture))
    mixture = torch.from_numpy(constants.mixture).to(clip.device)
    mixed = torch.einsum("bd,dcj->bcj", weights, mixture)
    return features, F.normalize(mixed, dim=-1)


def _domain_weights(block: Any, rows: Tensor, domains: int) -> Tensor:
    """Return the mean over heads of softmax_i(q . k_i / sqrt(head width)): [batch domains].

    ``q`` is of the class token, ``k_i`` of the ``domains`` last rows.
    """
    heads, width = block.attn.num_heads, rows.shape[-1]
    normed = block.ln_1(rows)
    projected = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, _ = projected.unflatten(-1, (3, heads, width // heads)).unbind(2)
    scores = torch.einsum("bhe,bdhe->bhd", query[:, 0], key[:, -domains:])
    weights: Tensor = (scores * (width // heads) ** -0.5).softmax(-1).mean(1)
    return weights
