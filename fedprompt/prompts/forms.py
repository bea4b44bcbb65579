"""Forms: how one prompt matrix is parametrised."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedprompt.basis import columns
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

    P0 is the frozen full-rank start. A starts at the orthonormal columns of `fedprompt.basis` and B
    at zero, so that P = P0 at step 0 (ours: the paper says only that one of them starts at zero).
    Columns of length one let the first steps of B move the prompt as far as those of a full matrix;
    mixed signs keep its tokens apart. rank * (length + width) numbers are trained: 516 for rank 1,
    length 4, width 512.

    Parameters
    ----------
    start
        P0 [length width].
    rank
        Of the update, at most the prompt length.
    dropout
        Share p of the entries of A B set to zero in a training step; the rest is divided by 1 - p.
    freeze_a
        Keep A as it starts: only B is trained and sent (aggregation rule ``shared-basis``, as
        FFA-LoRA, arXiv 2403.12313).
    """

    def __init__(
        self, start: Context, rank: int, dropout: float, *, freeze_a: bool = False
    ) -> None:
        super().__init__()
        length, width = start.shape
        first = _columns(length, rank).to(start)
        self.start: Tensor
        self.A: Tensor
        self.register_buffer("start", start.clone())
        if freeze_a:
            self.register_buffer("A", first)
        else:
            self.A = nn.Parameter(first)
        self.B = nn.Parameter(torch.zeros(rank, width).to(start))
        self.dropout = dropout

    def forward(self, generator: torch.Generator | None = None) -> Context:
        """Return P0 + drop_p(A B); without a generator nothing is dropped."""
        return self.start + _dropped(self.A @ self.B, self.dropout, generator)

    def fold(self) -> Context:
        """Return P0 + A B."""
        return (self.start + self.A @ self.B).detach()


class FreshBasis(nn.Module):
    """P = S + drop_p(A B), where A is another one at each turn and S adds up what turns learned.

    Aggregation rule ``fresh-basis`` (ours). S starts at P0. A turn, which is a round or an epoch,
    takes its A from `fedprompt.basis`, trains B from zero and sends it alone: the mean of A B is A
    times the mean of B, and the rank of what is learned grows turn by turn.

    Parameters
    ----------
    start
        P0 [length width].
    rank
        Of what a turn adds, at most the prompt length.
    dropout
        As in `LowRank`.
    """

    def __init__(self, start: Context, rank: int, dropout: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(start.clone(), requires_grad=False)
        self.B = nn.Parameter(torch.zeros(rank, start.shape[1]).to(start))
        self.dropout = dropout
        self._basis = _columns(len(start), rank).to(start)  # no buffer: every turn has its own

    def forward(self, generator: torch.Generator | None = None) -> Context:
        """Return S + drop_p(A B); without a generator nothing is dropped."""
        return self.matrix + _dropped(self._update(), self.dropout, generator)

    @torch.no_grad()
    def fold(self) -> Context:
        """Return S + A B."""
        return self.matrix + self._update()

    @torch.no_grad()
    def begin(self, turn: int) -> None:
        """Add A B to S and take the basis of a turn, from 0 on; B starts at zero."""
        self.matrix.copy_(self.fold())
        self.B.zero_()
        self._basis = _columns(len(self.matrix), len(self.B), turn)

    def _update(self) -> Context:
        return self._basis.to(self.B) @ self.B


def begin_turn(module: nn.Module, turn: int) -> None:
    """Let every matrix in form `FreshBasis` begin a turn; others are as they are."""
    for part in forms_of(module):
        if isinstance(part, FreshBasis):
            part.begin(turn)


def _columns(length: int, rank: int, turn: int = 0) -> Tensor:
    if rank > length:
        raise PromptError(
            f"prompt.rank = {rank} is too high for a matrix of {length} rows (of a prompt: "
            f"its tokens), whose rank is {length} at most; lower prompt.rank"
        )
    return torch.from_numpy(columns(length, rank, turn))


def _dropped(update: Context, share: float, generator: torch.Generator | None) -> Context:
    if generator is None or not share:
        return update
    # drawn on the CPU from the caller's generator, so that every engine draws the same
    kept = torch.rand(update.shape, generator=generator) >= share
    return update * kept.to(update) / (1 - share)


Matrix = Full | LowRank | FreshBasis


class Layers(nn.ModuleList):
    """Hold one matrix a block, all of one shape."""

    def __init__(self, forms: Iterable[Matrix]) -> None:
        super().__init__(forms)
        self.matrices: list[Form] = list(forms_of(self))

    def forward(
        self, generator: torch.Generator | None = None
    ) -> Float[Tensor, "layers length width"]:
        """Return all matrices, the first block's first; with a generator as in training."""
        return torch.stack([matrix(generator) for matrix in self.matrices])


def forms_of(module: nn.Module) -> Iterator[Matrix]:
    """Yield every matrix of a module."""
    return (part for part in module.modules() if isinstance(part, Matrix))


def describe_form(module: nn.Module) -> dict[str, str | int]:
    """Return ``form`` and ``rank`` of a module's matrices, for records and artefacts.

    Under `FreshBasis` what is left of it is a full matrix.
    """
    ranks = {len(part.B) for part in forms_of(module) if isinstance(part, LowRank)}
    return {"form": "lowrank" if ranks else "full", "rank": max(ranks, default=0)}


FormMaker = Callable[[Context], Matrix]  # from a start P0


def form_maker(
    form: str, rank: int, dropout: float, *, freeze_a: bool = False, fresh: bool = False
) -> FormMaker:
    """Return the function that gives each matrix of a host its form, ``full`` or ``lowrank``."""
    if form == "full":
        return Full
    if fresh:
        return partial(FreshBasis, rank=rank, dropout=dropout)
    return partial(LowRank, rank=rank, dropout=dropout, freeze_a=freeze_a)
