import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.prompts.density import density_penalty, information_density, mean_density, tail
from fedprompt.prompts.forms import Full
from fedprompt.prompts.methods import prompt_config

DIAGONAL = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))


@pytest.mark.parametrize(("k", "expected"), [(1, 0.4), (2, 0.7), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_density_is_the_share_of_the_first_k(k: int, expected: float) -> None:
    assert float(information_density(DIAGONAL, k)) == pytest.approx(expected, rel=1e-6)


def test_the_squared_form_is_a_switch() -> None:
    assert float(information_density(DIAGONAL, 1, squared=True)) == pytest.approx(16 / 30, rel=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(1, 6.0), (3, 1.0), (4, 0.0), (9, 0.0)])
def test_the_tail_is_what_stands_behind_k(k: int, expected: float) -> None:
    assert float(tail(DIAGONAL, k)) == pytest.approx(expected, abs=1e-6)


def test_a_zero_prompt_has_no_density_and_no_nan() -> None:
    assert float(information_density(torch.zeros(4, 8), 1)) == 0.0


@given(seed=st.integers(0, 2**20), k=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_density_lies_between_0_and_1_whatever_the_scale(seed: int, k: int, scale: float) -> None:
    prompt = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
    found = float(information_density(prompt, k))
    assert 0 < found <= 1 + 1e-6
    assert float(information_density(scale * prompt, k)) == pytest.approx(found, rel=1e-4)
    total = float(torch.linalg.svdvals(prompt).sum())
    assert float(tail(prompt, k)) == pytest.approx((1 - found) * total, abs=1e-3)


def test_the_settings_choose_k_and_the_squared_form() -> None:
    """A diagonal of 4, 3, 2, 1: its two first values are 7 of 10, or 25 of 30 squared."""
    form = Full(DIAGONAL)
    plain = prompt_config(density_k=2, density_weight=3)
    squared = plain.model_copy(update={"density_squared": True})
    assert mean_density([form], plain) == pytest.approx(7 / 10, rel=1e-6)
    assert mean_density([form], squared) == pytest.approx(25 / 30, rel=1e-6)
    assert float(density_penalty([form], squared).detach()) == pytest.approx(-3 * 25 / 30, rel=1e-6)
