"""A linear layer whose weights never change, so they are laid out once for the fastest kernel.

Frozen means computable once. On a CPU with AVX-512 torch's own matrix product may leave half the
machine idle (MKL takes AVX2 on AMD); oneDNN, which torch carries, does not. Everywhere else this is
torch's linear layer.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Rows = Float[Tensor, "rows width"]


class FrozenLinear:
    """y = x W^T + b with constant W [out width] and b [out]; gradients flow to x alone."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.detach(), bias.detach()
        self._packed: tuple[Tensor, Tensor, Tensor] | None = None
        if packing_pays(weight):
            turned = self.weight.t().contiguous()
            self._packed = (
                self.weight.contiguous().to_mkldnn(),
                self.bias.contiguous().to_mkldnn(),
                turned.to_mkldnn(),
            )

    def __call__(self, rows: Rows) -> Float[Tensor, "rows out"]:
        """Return the layer's output."""
        if self._packed is None:
            return F.linear(rows, self.weight, self.bias)
        product: Tensor = _Product.apply(rows, *self._packed)
        return product


def packing_pays(weight: Tensor) -> bool:
    """Say whether oneDNN is there and the processor is one where it is the faster."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return (
        plain
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


class _Product(torch.autograd.Function):
    """x W^T + b and its gradient by oneDNN; torch has no derivative of its own for this form."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, turned: Tensor) -> Tensor:
        """Return x W^T + b."""
        ctx.turned = turned
        return F.linear(rows.contiguous().to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return g W."""
        packed = gradients[0].contiguous().to_mkldnn()
        return F.linear(packed, ctx.turned).to_dense(), None, None, None
