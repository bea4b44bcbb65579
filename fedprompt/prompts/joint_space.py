"""The way from a tower's width into the joint space, and back by the exact inverse."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedprompt.errors import PromptError
from fedprompt.types import Context

Points = Float[Tensor, "length joint"]


class JointSpace:
    """z = x W + b and back, x = (z - b) pinv(W) (SDPT, arXiv 2407.11414), with W [width joint].

    The pseudo-inverse is computed once, in float64. With at least as many rows as columns
    pinv(W) W = I: a point comes back from the tower's width as it went (CLIP's 512 x 512 and
    768 x 512). With fewer rows W pinv(W) = I: tokens come back from the joint space as they went
    (192 x 256 of the embedded CLIP's); a square W has both.

    Parameters
    ----------
    projection
        A tower's own: a matrix [width joint], or ``nn.Linear``, whose weight is its transpose.
    width
        Of the tower's tokens.
    tower
        For messages.

    Raises
    ------
    PromptError
        The tower has no such matrix, or projects something else than its tokens.
    """

    def __init__(self, projection: object, width: int, tower: str) -> None:
        matrix: object = projection
        bias: Tensor | None = None
        if isinstance(projection, nn.Linear):
            matrix, bias = projection.weight.T, projection.bias
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or len(matrix) != width:
            found = list(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
            raise PromptError(
                f"the {tower} tower's projection is {found}, expected a matrix [{width} joint] "
                "from its tokens into the joint space, which sdpt inverts; choose another backbone "
                "or another method, such as ivlp"
            )
        self.weight = matrix.detach()
        self.bias = self.weight.new_zeros(matrix.shape[1]) if bias is None else bias.detach()
        inverse = torch.linalg.pinv(self.weight.double().cpu())
        self.inverse = inverse.to(self.weight)

    def points(self, tokens: Context) -> Points:
        """Return x W + b, each number the correctly rounded sum.

        What sites must agree on bit for bit starts here, and a BLAS may add in any order. A product
        of two float32 is exact in float64, and ``math.fsum`` rounds once.
        """
        one = tokens.new_ones(len(tokens), 1)
        left = torch.cat([tokens.detach(), one], 1).double().cpu().numpy()
        right = torch.cat([self.weight, self.bias[None]]).double().cpu().numpy().T
        sums = [[math.fsum((row * column).tolist()) for column in right] for row in left]
        return torch.tensor(sums, dtype=torch.float64).to(tokens)

    def tokens(self, points: Points) -> Context:
        """Return (z - b) pinv(W), never in bf16: the inverse would not survive it."""
        with torch.autocast(points.device.type, enabled=False):
            back: Tensor = (points - self.bias) @ self.inverse
            return back
