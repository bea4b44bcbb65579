import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedprompt.backbone import frozen_linear
from fedprompt.backbone.frozen_linear import FrozenLinear


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 2), (17, 48, 96), (336, 64, 16)])
def test_it_is_torchs_linear_layer_gradients_included(
    monkeypatch: pytest.MonkeyPatch, packed: bool, shape: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(frozen_linear, "packing_pays", lambda weight: packed)
    count, width, out = shape
    layer = nn.Linear(width, out)
    rows, gradient = torch.randn(count, width, requires_grad=True), torch.randn(count, out)
    expected = F.linear(rows, layer.weight, layer.bias)
    found = FrozenLinear(layer.weight, layer.bias)(rows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (wanted,) = torch.autograd.grad(expected, rows, gradient)
    (given,) = torch.autograd.grad(found, rows, gradient)
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


def test_rows_without_memory_order_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_linear, "packing_pays", lambda weight: True)
    weight, bias = torch.randn(4, 6), torch.randn(4)
    rows = torch.randn(6, 5).t()
    found = FrozenLinear(weight, bias)(rows)
    torch.testing.assert_close(found, F.linear(rows, weight, bias), rtol=1e-5, atol=1e-5)


def test_weights_stay_frozen() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    rows = torch.randn(2, 4, requires_grad=True)
    FrozenLinear(layer.weight, layer.bias)(rows).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before)


def test_other_precisions_take_torchs_own_kernel() -> None:
    assert not frozen_linear.packing_pays(torch.zeros(2, 2, dtype=torch.float64))
    assert not frozen_linear.packing_pays(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not frozen_linear.packing_pays(torch.zeros(2, 2, device="meta"))
