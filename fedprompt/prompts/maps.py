"""Maps from one tower's prompts to the other's: one matrix, or a transformer block and a matrix.

Matrices take the form of the prompts (``full`` or ``lowrank``); biases and LayerNorms stay full.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.prompts.forms import FormMaker

HEAD_WIDTH = 64  # of an attention head, as in CLIP's own towers
MLP_RATIO = 4  # as in CLIP's own towers

Inputs = Float[Tensor, "layers length inputs"]
Outputs = Float[Tensor, "layers length outputs"]


class LinearMap(nn.Module):
    """y = x W^T + b, with W [outputs inputs] and b [outputs] started as ``nn.Linear`` starts them.

    Parameters
    ----------
    inputs, outputs
        Widths.
    form
        Of W.
    generator
        Draws W and b.
    attention
        Start as ``nn.MultiheadAttention`` does instead: b at zero, and the one matrix of query, key
        and value by Xavier's uniform bound, sqrt(6 / (inputs + outputs)).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        form: FormMaker,
        generator: torch.Generator,
        *,
        attention: Literal["", "packed", "output"] = "",
    ) -> None:
        super().__init__()
        usual = math.sqrt(inputs)
        divisor = math.sqrt((inputs + outputs) / 6) if attention == "packed" else usual
        self.weight = form(_uniform((outputs, inputs), divisor, generator))
        bias = torch.zeros(outputs) if attention else _uniform((outputs,), usual, generator)
        self.bias = nn.Parameter(bias)

    def forward(self, tokens: Inputs, generator: torch.Generator | None = None) -> Outputs:
        """Return the mapped tokens; with a generator as in training."""
        mapped: Tensor = F.linear(tokens, self.weight(generator), self.bias)
        return mapped


class TransformerMap(nn.Module):
    """y = W LN(z) + b with z = one pre-norm transformer block of LN(x), over a layer's n tokens.

    The block is x + attention(LN(x)), then x + MLP(LN(x)), without a mask; the MLP's activation is
    QuickGELU, x sigmoid(1.702 x) (MuDPT, arXiv 2306.11400; code). Every matrix is a `LinearMap`:
    query, key and value in one [3 width, width], the attention's output, both of the MLP (4 times
    as wide). A width that 64 does not divide gets one head (ours). Parameters are those of
    `LinearMap`.
    """

    def __init__(
        self, inputs: int, outputs: int, form: FormMaker, generator: torch.Generator
    ) -> None:
        super().__init__()
        wide = MLP_RATIO * inputs
        self.heads = inputs // HEAD_WIDTH if inputs % HEAD_WIDTH == 0 else 1
        self.entrance = nn.LayerNorm(inputs)
        self.attention_norm = nn.LayerNorm(inputs)
        self.attention = LinearMap(inputs, 3 * inputs, form, generator, attention="packed")
        self.attended = LinearMap(inputs, inputs, form, generator, attention="output")
        self.mlp_norm = nn.LayerNorm(inputs)
        self.widen = LinearMap(inputs, wide, form, generator)
        self.narrow = LinearMap(wide, inputs, form, generator)
        self.exit = nn.LayerNorm(inputs)
        self.out = LinearMap(inputs, outputs, form, generator)

    def forward(self, tokens: Inputs, generator: torch.Generator | None = None) -> Outputs:
        """Return the mapped tokens; with a generator as in training."""
        rows = self.entrance(tokens)
        rows = rows + self._attend(self.attention_norm(rows), generator)
        widened = self.widen(self.mlp_norm(rows), generator)
        rows = rows + self.narrow(widened * torch.sigmoid(1.702 * widened), generator)
        mapped: Tensor = self.out(self.exit(rows), generator)
        return mapped

    def _attend(self, rows: Inputs, generator: torch.Generator | None) -> Inputs:
        """Let the tokens of each layer attend to each other."""
        parts = self.attention(rows, generator).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [layers heads length head_width]
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended: Tensor = self.attended(read, generator)
        return attended


def _uniform(shape: tuple[int, ...], divisor: float, generator: torch.Generator) -> Tensor:
    """Return values of U(-1/divisor, 1/divisor): with sqrt(inputs) it is ``nn.Linear``'s start.

    Drawn on the CPU; 2 u - 1 is exact and one quotient is rounded, so that every machine draws the
    same bits, with fused arithmetic or without.
    """
    spread: Tensor = 2 * torch.rand(shape, generator=generator) - 1
    return spread / divisor
