import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.errors import PromptError
from fedprompt.prompts.forms import SPREAD, Full, LowRank

START = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(rank: int = 1, dropout: float = 0.0, **options: object) -> LowRank:
    """Return a form that has been trained: B is not zero."""
    form = LowRank(START, rank, dropout, seeded(), **options)
    with torch.no_grad():
        form.B.copy_(torch.randn(form.B.shape, generator=seeded(1)))
    return form


def test_the_default_trains_516_numbers() -> None:
    form = LowRank(START, 1, 0.05, seeded())
    assert {n: tuple(p.shape) for n, p in form.named_parameters()} == {"A": (4, 1), "B": (1, 512)}
    assert sum(parameter.numel() for parameter in form.parameters()) == 516


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_starts_at_p0_bit_for_bit(rank: int) -> None:
    form = LowRank(START, rank, 0.5, seeded())
    assert torch.equal(form(), START)
    assert torch.equal(form(seeded()), START)
    assert torch.equal(form.fold(), START)
    assert sum(p.numel() for p in form.parameters()) == rank * (4 + 512)


def test_it_can_move_from_there() -> None:
    form = LowRank(START, 1, 0.0, seeded())
    form().square().sum().backward()
    assert form.B.grad.abs().sum() > 0
    assert form.A.grad.abs().sum() == 0  # B is zero, so A moves from the second step on


def test_a_is_drawn_as_coop_draws() -> None:
    wide = LowRank(torch.zeros(64, 2), 64, 0.0, seeded())
    assert wide.A.std().item() == pytest.approx(SPREAD, rel=0.05)
    assert torch.equal(wide.A, LowRank(torch.zeros(64, 2), 64, 0.0, seeded()).A)
    assert not torch.equal(wide.A, LowRank(torch.zeros(64, 2), 64, 0.0, seeded(1)).A)


def test_rank_is_at_most_the_length() -> None:
    with pytest.raises(PromptError, match=r"prompt.rank = 5 is too high for a matrix of 4 rows"):
        LowRank(START, 5, 0.0, seeded())


def test_the_start_belongs_to_the_form() -> None:
    mine = START.clone()
    form, full = LowRank(mine, 1, 0.0, seeded()), Full(mine)
    mine.zero_()
    assert torch.equal(form(), START)
    assert torch.equal(full(), START)


def test_under_a_shared_basis_only_b_is_trained() -> None:
    form = low_rank(freeze_a=True)
    assert [name for name, _ in form.named_parameters()] == ["B"]
    assert sorted(name for name, _ in form.named_buffers()) == ["A", "start"]
    assert torch.equal(form.A, LowRank(START, 1, 0.0, seeded()).A)


def test_dropout_drops_the_update_and_never_the_start() -> None:
    form = low_rank(dropout=0.25)
    update = (form.A @ form.B).detach()
    moved = (form(seeded(3)) - START).detach()
    dropped = moved.abs() < 1e-7
    assert 0.2 < dropped.float().mean().item() < 0.3
    torch.testing.assert_close(moved[~dropped], update[~dropped] / 0.75, rtol=1e-3, atol=1e-6)


def test_dropout_keeps_the_mean() -> None:
    form, draws = low_rank(dropout=0.5), seeded()
    mean = torch.stack([form(draws).detach() for _ in range(800)]).mean(0) - START
    update = (form.A @ form.B).detach()
    assert (mean - update).norm() < 0.1 * update.norm()  # standard error 1 / sqrt(800) = 0.035


def test_dropout_follows_the_generator_alone() -> None:
    form = low_rank(dropout=0.5)
    torch.manual_seed(1)
    first = form(seeded(3))
    torch.manual_seed(2)
    assert torch.equal(form(seeded(3)), first)
    assert not torch.equal(form(seeded(4)), first)
    draws = seeded(3)
    assert torch.equal(form(draws), first)
    assert not torch.equal(form(draws), first)  # the next step draws anew


def test_no_dropout_draws_nothing() -> None:
    draws = seeded(3)
    low_rank(dropout=0.0)(draws)
    assert torch.equal(draws.get_state(), seeded(3).get_state())


@settings(max_examples=30)
@given(
    length=st.integers(1, 16),
    width=st.integers(1, 64),
    rank=st.integers(1, 16),
    seed=st.integers(0, 2**20),
)
def test_folding_is_exact_and_of_the_stated_rank(
    length: int, width: int, rank: int, seed: int
) -> None:
    rank = min(rank, length)
    start = torch.randn(length, width, generator=seeded(seed), dtype=torch.float64)
    form = LowRank(start, rank, 0.9, seeded(seed))
    with torch.no_grad():
        form.B.copy_(torch.randn(rank, width, generator=seeded(seed + 1)))
    assert torch.equal(form.fold(), form().detach())
    assert not form.fold().requires_grad
    update = form.fold() - start
    rounding = 1e-14 * (1 + float(start.norm()))  # of the addition and of taking P0 off again
    assert int(torch.linalg.matrix_rank(update, atol=rounding, rtol=1e-12)) <= rank


def test_the_full_form_is_its_matrix() -> None:
    form = Full(START)
    assert torch.equal(form(seeded()), START)
    assert torch.equal(form.fold(), START)
    assert not form.fold().requires_grad
    assert [tuple(p.shape) for p in form.parameters()] == [(4, 512)]
