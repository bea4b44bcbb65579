import numpy as np
import pytest
import torch
from torch import nn

from client.tuning.proximal import Proximal


def tensors() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((4, 1), (1, 32))]


def test_it_is_half_the_squared_distance_from_where_the_tensors_were() -> None:
    tied = tensors()
    start = [tensor.detach().numpy().copy() for tensor in tied]
    proximal = Proximal(tied, 3.0)
    assert float(proximal.penalty().detach()) == 0.0
    with torch.no_grad():
        for tensor in tied:
            tensor.mul_(1.5)
    distance = sum(float((0.25 * array.astype(float) ** 2).sum()) for array in start)
    assert float(proximal.penalty().detach()) == pytest.approx(1.5 * distance, rel=1e-6)
    proximal.penalty().backward()
    for tensor, array in zip(tied, start, strict=True):  # the gradient is mu (now - start)
        np.testing.assert_allclose(tensor.grad, 3.0 * 0.5 * array, rtol=1e-5)


def test_no_weight_leaves_no_gradient() -> None:
    proximal = Proximal(tied := tensors(), 0.0)
    with torch.no_grad():
        tied[0].add_(1)
    assert float(proximal.penalty().detach()) == 0.0
    assert not proximal.penalty().requires_grad
