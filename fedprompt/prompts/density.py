"""Information density: how much of a prompt lies in its first singular directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from fedprompt.types import Context


def information_density(prompt: Context, k: int, *, squared: bool = False) -> Float[Tensor, ""]:
    """Return ID_k(P) = sum_{i<=k} sigma_i / sum_i sigma_i, between 0 and 1.

    Source: DIP (arXiv 2312.10813). The exact published form is not confirmed; ``squared`` takes
    sigma_i^2 instead.
    """
    spectrum = torch.linalg.svdvals(prompt)
    spectrum = spectrum**2 if squared else spectrum
    total = spectrum.sum().clamp_min(torch.finfo(spectrum.dtype).tiny)
    density: Tensor = spectrum[:k].sum() / total
    return density


def tail(prompt: Context, k: int) -> Float[Tensor, ""]:
    """Return sum_{i>k} sigma_i, what DIP's PP term penalises."""
    spectrum: Tensor = torch.linalg.svdvals(prompt)
    return spectrum[k:].sum()
