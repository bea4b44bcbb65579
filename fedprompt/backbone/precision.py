"""Which precision a tower computes in (design.md, speed-up 6)."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def tower_precision(device: torch.device) -> AbstractContextManager[object]:
    """Run the towers in bf16 on a GPU that has it, in training; fp32 stays the reference."""
    if device.type == "cuda" and torch.is_grad_enabled() and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def full_precision(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least: bf16 is widened, float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
