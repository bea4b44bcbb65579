from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from fedprompt.errors import PromptError
from fedprompt.prompts.joint_space import JointSpace


def trained_like(rows: int, columns: int) -> torch.Tensor:
    """Return a random matrix whose spectrum falls over two decades, as trained ones fall."""
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(rows, columns, generator=draws, dtype=torch.float64)
    left, _, right = torch.linalg.svd(values, full_matrices=False)
    spectrum = torch.logspace(0, -2, min(rows, columns), dtype=torch.float64)
    return (left * spectrum @ right).float()


def gaussian(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) / rows**0.5


@pytest.mark.parametrize("weights", [trained_like, gaussian])
@pytest.mark.parametrize(("width", "joint"), [(512, 512), (768, 512), (192, 256)])
def test_the_inverse_is_exact_for_clip_shapes(weights, width: int, joint: int) -> None:
    """As it is used, in float32: pinv(W) W = I, or W pinv(W) = I where W has fewer rows."""
    weight = weights(width, joint)
    inverse = JointSpace(weight, width, "text").inverse
    assert inverse.dtype == torch.float32
    product = inverse @ weight if width >= joint else weight @ inverse
    assert (product - torch.eye(min(width, joint))).abs().max() <= 1e-5


@pytest.mark.parametrize(("width", "joint"), [(12, 8), (8, 8), (8, 12)])
def test_there_and_back(width: int, joint: int) -> None:
    draws = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    layer = nn.Linear(width, joint).double()
    space = JointSpace(layer, width, "text")
    tokens = torch.randn(4, width, generator=draws, dtype=torch.float64)
    points = space.points(tokens)
    torch.testing.assert_close(points, layer(tokens).detach(), rtol=1e-12, atol=1e-12)
    if width <= joint:
        torch.testing.assert_close(space.tokens(points), tokens, rtol=1e-9, atol=1e-9)
    if width >= joint:
        anywhere = torch.randn(4, joint, generator=draws, dtype=torch.float64)
        back = layer(space.tokens(anywhere)).detach()
        torch.testing.assert_close(back, anywhere, rtol=1e-9, atol=1e-9)


def test_points_are_the_correctly_rounded_sums() -> None:
    """So that no machine's order of additions shows; compared with exact fractions."""
    draws = torch.Generator().manual_seed(2)
    weight, tokens = torch.randn(40, 3, generator=draws), torch.randn(2, 40, generator=draws)
    weight[7], tokens[:, 7] = 1e6, 1e6  # would drown the others in float32
    weight[9], tokens[:, 9] = -1e6, 1e6
    layer = nn.Linear(40, 3)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
    found = JointSpace(layer, 40, "text").points(tokens)
    for i, row in enumerate(tokens.tolist()):
        for j, column in enumerate(weight.T.tolist()):
            exact = sum(Fraction(a) * Fraction(b) for a, b in zip(row, column, strict=True))
            exact += Fraction(layer.bias[j].item())
            assert found[i, j].item() == np.float32(float(exact))


def test_a_matrix_of_lower_rank_has_the_nearest_answer() -> None:
    weight = gaussian(8, 6)
    weight[:, 5] = weight[:, 4]
    space = JointSpace(weight, 8, "text")
    points = space.points(torch.randn(2, 8, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(space.tokens(points) @ weight, points, rtol=1e-4, atol=1e-5)


def test_the_inverse_is_not_taken_in_bf16() -> None:
    space = JointSpace(gaussian(64, 64), 64, "text")
    points = torch.randn(4, 64, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        found = space.tokens(points)
    assert torch.equal(found, space.tokens(points))


@pytest.mark.parametrize("projection", [None, nn.Identity(), torch.zeros(9, 4), torch.zeros(8)])
def test_a_tower_without_such_a_matrix_is_refused(projection: object) -> None:
    with pytest.raises(PromptError, match=r"image tower's projection is .*expected a matrix \[8"):
        JointSpace(projection, 8, "image")
