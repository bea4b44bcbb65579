"""One residual attention block of a frozen tower, cut at its attention."""

import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from fedprompt.backbone.frozen_linear import FrozenLinear

Rows = Float[Tensor, "rows width"]
Heads = Float[Tensor, "rows heads head_width"]


class FrozenBlock:
    """Give what stands before and behind the attention of open_clip's ``ResidualAttentionBlock``.

    Parameters
    ----------
    block
        The block; its weights are laid out anew, not changed.
    last
        Of the last block keys and values are read at all rows, queries at some: they are kept
        apart.
    """

    def __init__(self, block: ResidualAttentionBlock, *, last: bool) -> None:
        self.block, self.heads = block, block.attn.num_heads
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        width = self._width = weight.shape[1]
        sizes = [width, 2 * width] if last else [3 * width]
        parts = zip(weight.split(sizes), bias.split(sizes), strict=True)
        self._projections = [FrozenLinear(w, b) for w, b in parts]
        self._out = FrozenLinear(block.attn.out_proj.weight, block.attn.out_proj.bias)
        self._widen = FrozenLinear(block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        self._narrow = FrozenLinear(block.mlp.c_proj.weight, block.mlp.c_proj.bias)

    def project(self, rows: Rows) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values of every row."""
        query, key, value = self._split(self._projections[0](self.block.ln_1(rows)), 3)
        return query, key, value

    def project_some(
        self, rows: Rows, chosen: Tensor
    ) -> tuple[Float[Tensor, "chosen heads head_width"], Heads, Heads]:
        """Return queries of the chosen rows, keys and values of every row (last block only)."""
        hidden = self.block.ln_1(rows)
        key, value = self._split(self._projections[1](hidden), 2)
        (query,) = self._split(self._projections[0](hidden[chosen]), 1)
        return query, key, value

    def keys(self, rows: Rows) -> tuple[Heads, Heads]:
        """Return keys and values of rows that ask nothing themselves."""
        packed = self._projections[-1](self.block.ln_1(rows))
        key, value = self._split(packed, packed.shape[-1] // self._width)[-2:]
        return key, value

    def close(self, rows: Rows, read: Heads) -> Rows:
        """Finish the block: output projection, MLP and both residuals."""
        rows = rows + self.block.ls_1(self._out(read.flatten(1)))
        hidden = self.block.mlp.gelu(self._widen(self.block.ln_2(rows)))
        closed: Tensor = rows + self.block.ls_2(self._narrow(hidden))
        return closed

    def _split(self, packed: Tensor, count: int) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.unbind(packed.unflatten(-1, (count, self.heads, -1)), 1)
        return parts
