"""Forms: how one prompt matrix is parametrised."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedprompt.errors import PromptError
from fedprompt.types import Context

SPREAD = 0.02  # standard deviation of a random start, as in CoOp's code


@runtime_checkable
class Form(Protocol):
    """Give a prompt matrix [length width] from what is trained."""

    def __call__(self, generator: torch.Generator | None = None) -> Context:
        """Return the matrix; with a generator as it enters the tower in training."""

    def fold(self) -> Context:
        """Return the plain matrix: what is deployed."""


class Full(nn.Module):
    """Train every number of the matrix (CoOp, arXiv 2109.01134)."""

    def __init__(self, start: Context) -> None:
        super().__init__()
        self.matrix = nn.Parameter(start.clone())

    def forward(self, generator: torch.Generator | None = None) -> Context:  # noqa: ARG002
        """Return the matrix itself: this form has no dropout."""
        return self.matrix

    def fold(self) -> Context:
        """Return a copy of the matrix."""
        return self.matrix.detach().clone()


class LowRank(nn.Module):
    """P = P0 + drop_p(A B), with A [length rank], B [rank width] (DIP, arXiv 2312.10813).

    P0 is the frozen full-rank start. A ~ N(0, 0.02) and B = 0, so that P = P0 at step 0 (ours:
    the paper says only that one of them starts at zero). rank * (length + width) numbers are
    trained: 516 for rank 1, length 4, width 512.

    Parameters
    ----------
    start
        P0 [length width].
    rank
        Of the update, at most the prompt length.
    dropout
        Share p of the entries of A B set to zero in a training step; the rest is divided by 1 - p.
    generator
        Draws A.
    freeze_a
        Keep A as drawn: only B is trained and sent (aggregation rule ``shared-basis``).
    """

    def __init__(
        self,
        start: Context,
        rank: int,
        dropout: float,
        generator: torch.Generator,
        *,
        freeze_a: bool = False,
    ) -> None:
        super().__init__()
        length, width = start.shape
        if rank > length:
            raise PromptError(
                f"prompt.rank = {rank} is too high for a matrix of {length} rows (of a prompt: "
                f"its tokens), whose rank is {length} at most; lower prompt.rank"
            )
        self.start: Tensor
        self.A: Tensor
        self.register_buffer("start", start.clone())
        drawn = SPREAD * torch.randn(length, rank, generator=generator)
        if freeze_a:
            self.register_buffer("A", drawn.to(start))
        else:
            self.A = nn.Parameter(drawn.to(start))
        self.B = nn.Parameter(torch.zeros(rank, width).to(start))
        self.dropout = dropout

    def forward(self, generator: torch.Generator | None = None) -> Context:
        """Return P0 + drop_p(A B); without a generator nothing is dropped."""
        update = self.A @ self.B
        if generator is None or not self.dropout:
            return self.start + update
        # drawn on the CPU from the caller's generator, so that every engine draws the same
        kept = torch.rand(update.shape, generator=generator) >= self.dropout
        return self.start + update * kept.to(update) / (1 - self.dropout)

    def fold(self) -> Context:
        """Return P0 + A B."""
        return (self.start + self.A @ self.B).detach()


class Layers(nn.ModuleList):
    """Hold one matrix a block, all of one shape."""

    def __init__(self, forms: Iterable["Full | LowRank"]) -> None:
        super().__init__(forms)
        self.matrices: list[Form] = list(forms_of(self))

    def forward(
        self, generator: torch.Generator | None = None
    ) -> Float[Tensor, "layers length width"]:
        """Return all matrices, the first block's first; with a generator as in training."""
        return torch.stack([matrix(generator) for matrix in self.matrices])


def forms_of(module: nn.Module) -> Iterator["Full | LowRank"]:
    """Yield every matrix of a module."""
    return (part for part in module.modules() if isinstance(part, Full | LowRank))


def describe_form(module: nn.Module) -> dict[str, str | int]:
    """Return ``form`` and ``rank`` of a module's matrices, for records and artefacts."""
    ranks = {len(part.B) for part in forms_of(module) if isinstance(part, LowRank)}
    return {"form": "lowrank" if ranks else "full", "rank": max(ranks, default=0)}


FormMaker = Callable[[Context], "Full | LowRank"]  # from a start P0


def form_maker(
    form: str, rank: int, dropout: float, generator: torch.Generator, *, freeze_a: bool = False
) -> FormMaker:
    """Return the function that gives each matrix of a host its form, ``full`` or ``lowrank``."""
    if form == "full":
        return Full
    return partial(LowRank, rank=rank, dropout=dropout, generator=generator, freeze_a=freeze_a)
