import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.basis import columns
from fedprompt.errors import PromptError
from fedprompt.prompts.density import change_rank
from fedprompt.prompts.forms import FreshBasis, Full, LowRank, begin_turn, forms_of

START = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(rank: int = 1, dropout: float = 0.0, **options: object) -> LowRank:
    """Return a form that has been trained: B is not zero."""
    form = LowRank(START, rank, dropout, **options)
    with torch.no_grad():
        form.B.copy_(torch.randn(form.B.shape, generator=seeded(1)))
    return form


def test_the_default_trains_516_numbers() -> None:
    form = LowRank(START, 1, 0.05)
    assert {n: tuple(p.shape) for n, p in form.named_parameters()} == {"A": (4, 1), "B": (1, 512)}
    assert sum(parameter.numel() for parameter in form.parameters()) == 516


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_starts_at_p0_bit_for_bit(rank: int) -> None:
    form = LowRank(START, rank, 0.5)
    assert torch.equal(form(), START)
    assert torch.equal(form(seeded()), START)
    assert torch.equal(form.fold(), START)
    assert sum(p.numel() for p in form.parameters()) == rank * (4 + 512)


def test_it_can_move_from_there() -> None:
    form = LowRank(START, 1, 0.0)
    form().square().sum().backward()
    assert form.B.grad.abs().sum() > 0
    assert form.A.grad.abs().sum() == 0  # B is zero, so A moves from the second step on


def test_a_starts_at_orthonormal_columns_that_part_the_tokens() -> None:
    form = LowRank(START, 3, 0.0)
    torch.testing.assert_close(form.A.T @ form.A, torch.eye(3))
    assert (form.A.abs() == 0.5).all()
    assert form.A.sum(0).abs().max() == 0  # as many tokens go one way as the other


def test_first_steps_go_as_far_as_those_of_a_full_matrix() -> None:
    """The gradient of B is that of P along A's column, whose length is one."""
    low, full = LowRank(START, 4, 0.0), Full(START)
    goal = torch.randn(4, 512, generator=seeded(3))
    for form in (low, full):
        (form() * goal).sum().backward()
    step = low.A.detach() @ low.B.grad
    assert full.matrix.grad is not None
    torch.testing.assert_close(step, full.matrix.grad)


def test_rank_is_at_most_the_length() -> None:
    with pytest.raises(PromptError, match=r"prompt.rank = 5 is too high for a matrix of 4 rows"):
        LowRank(START, 5, 0.0)


def test_the_start_belongs_to_the_form() -> None:
    mine = START.clone()
    form, full = LowRank(mine, 1, 0.0), Full(mine)
    mine.zero_()
    assert torch.equal(form(), START)
    assert torch.equal(full(), START)


def test_under_a_shared_basis_only_b_is_trained() -> None:
    form = low_rank(freeze_a=True)
    assert [name for name, _ in form.named_parameters()] == ["B"]
    assert sorted(name for name, _ in form.named_buffers()) == ["A", "start"]
    assert torch.equal(form.A, LowRank(START, 1, 0.0).A)


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
    form = LowRank(start, rank, 0.9)
    with torch.no_grad():
        form.B.copy_(torch.randn(rank, width, generator=seeded(seed + 1)))
    assert torch.equal(form.fold(), form().detach())
    assert not form.fold().requires_grad
    update = form.fold() - start
    rounding = 1e-14 * (1 + float(start.norm()))  # of the addition and of taking P0 off again
    assert int(torch.linalg.matrix_rank(update, atol=rounding, rtol=1e-12)) <= rank


def fresh(rank: int = 1, dropout: float = 0.0) -> FreshBasis:
    form = FreshBasis(START, rank, dropout)
    with torch.no_grad():
        form.B.copy_(torch.randn(form.B.shape, generator=seeded(1)))
    return form


def test_a_fresh_basis_starts_at_p0_bit_for_bit() -> None:
    form = FreshBasis(START, 2, 0.5)
    assert torch.equal(form(seeded()), START)
    assert torch.equal(form.fold(), START)
    form.begin(3)
    assert torch.equal(form.fold(), START)


def test_of_a_fresh_basis_b_alone_is_trained() -> None:
    form = fresh()
    form().square().sum().backward()
    assert form.B.grad is not None
    assert form.matrix.grad is None


def test_turns_add_up_and_the_rank_grows() -> None:
    form, total = FreshBasis(START, 1, 0.0), START.clone()
    for turn in range(6):
        form.begin(turn)
        assert not form.B.any()
        with torch.no_grad():
            form.B.copy_(torch.randn(1, 512, generator=seeded(turn)))
        column = torch.from_numpy(columns(4, 1, turn))
        total = total + column @ form.B.detach()
        torch.testing.assert_close(form.fold(), total, rtol=1e-5, atol=1e-6)
        assert change_rank([form], [START]) == min(turn + 1, 4)


def test_dropout_spares_what_earlier_turns_learned() -> None:
    form = fresh(dropout=0.5)
    kept = form.fold()
    form.begin(1)
    assert torch.equal(form(seeded(3)), kept)


def test_beginning_a_turn_leaves_other_forms_alone() -> None:
    module = torch.nn.ModuleList([low_rank(), Full(START), fresh()])
    before = [form.fold() for form in forms_of(module)]
    begin_turn(module, 2)
    assert all(map(torch.equal, before, [form.fold() for form in forms_of(module)]))
    assert module[0].B.any()
    assert not module[2].B.any()


def test_the_full_form_is_its_matrix() -> None:
    form = Full(START)
    assert torch.equal(form(seeded()), START)
    assert torch.equal(form.fold(), START)
    assert not form.fold().requires_grad
    assert [tuple(p.shape) for p in form.parameters()] == [(4, 512)]
