"""One operator at a time; guests, and whole towers, are in test_guests.py and test_tower.py."""

import pytest

from export.graph.portable_operators import Portable
from tests.unit.export.graph.blocks_by_hand import check_activation, check_attention, check_sum


@pytest.mark.parametrize("first_only", [False, True])
def test_attention_is_the_equation(first_only: bool) -> None:
    check_attention(Portable(), first_only)


def test_the_sum_and_its_norm() -> None:
    check_sum(Portable())


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "quick_gelu"])
def test_the_activation(kind: str) -> None:
    check_activation(Portable(), kind)
