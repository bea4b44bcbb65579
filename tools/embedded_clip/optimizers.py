"""Muon for hidden matrices, AdamW for everything else, one schedule for both."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def make_optimizers(
    modules: Iterable[nn.Module], *, muon_rate: float, adam_rate: float, weight_decay: float
) -> list[Optimizer]:
    """Give the matrices inside transformer blocks to Muon and the rest to AdamW."""
    named = [pair for module in modules for pair in module.named_parameters()]
    named = [(name, p) for name, p in named if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "resblocks" in name]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    decayed = [p for p in rest if p.ndim >= 2 and p.shape[0] < 10_000]
    plain = [p for p in rest if p.ndim < 2 or p.shape[0] >= 10_000]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    made: list[Optimizer] = [
        AdamW(groups, fused=True, lr=adam_rate, weight_decay=weight_decay, betas=(0.9, 0.98))
    ]
    if matrices:
        made.append(
            Muon(
                matrices,
                lr=muon_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
                ns_steps=4,
            )
        )
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def set_rate(
    optimizers: Iterable[Optimizer], progress: float, *, warm_up: float = 0.03, flat: float = 0.0
) -> None:
    """Set every rate to its share of the peak: linear warm-up, flat, then cosine to zero.

    While the training is in its flat part its length can still be changed.
    """
    falling = max(0.0, min(progress, 1.0) - flat) / (1 - flat)
    share = min(progress / warm_up, 1.0) * 0.5 * (1 + math.cos(math.pi * falling))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


def average_gradients(optimizers: Iterable[Optimizer]) -> None:
    """Average the gradients over the processes of a run of several.

    On a busy machine two processes that meet once a step are faster than two threads.
    """
    gradients = [
        p.grad
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None
    ]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    parts = (flat / dist.get_world_size()).split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def step(optimizers: Iterable[Optimizer], loss: torch.Tensor) -> None:
    """Descend once along the gradient of ``loss``."""
    loss.backward()
    if dist.is_initialized():
        average_gradients(optimizers)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
