"""Information density: how much of a prompt lies in its first singular directions."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedprompt.prompts.forms import Form
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import Context

_LEAST = 1e-4  # of the first singular value; a difference of float32 matrices is never exact


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


def density_penalty(matrices: Sequence[Form], config: PromptConfig) -> Float[Tensor, ""]:
    """Return DIP's DO and PP: sum over P of -lambda ID_k(P) + lambda' sum_{i>k} sigma_i."""
    loss: Tensor = matrices[0]().new_zeros(())
    if config.density_weight:
        terms = [_density(form(), config) for form in matrices]
        loss = loss - config.density_weight * torch.stack(terms).sum()
    if config.tail_weight:
        terms = [tail(form(), config.density_k) for form in matrices]
        loss = loss + config.tail_weight * torch.stack(terms).sum()
    return loss


@torch.no_grad()
def mean_density(matrices: Sequence[Form], config: PromptConfig) -> float:
    """Return the mean ID_k of the folded matrices."""
    return float(torch.stack([_density(form.fold(), config) for form in matrices]).mean())


@torch.no_grad()
def change_rank(matrices: Iterable[Form], starts: Iterable[Tensor]) -> int:
    """Return the largest rank of P - P0, of singular values above 1e-4 of the first.

    ``starts`` are [length width] each, but not all alike: the towers differ in width.
    """
    changes = [form.fold() - start for form, start in zip(matrices, starts, strict=True)]
    return max(
        (int(torch.linalg.matrix_rank(change, rtol=_LEAST)) for change in changes), default=0
    )


def _density(prompt: Context, config: PromptConfig) -> Float[Tensor, ""]:
    return information_density(prompt, config.density_k, squared=config.density_squared)
