"""Tune a prompt on one site's features: the whole local computation of a round."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from client.features.oom_retry import retry_smaller
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.errors import PromptError
from fedprompt.prompts.build import Prompt
from fedprompt.settings.fit import FitConfig
from fedprompt.types import Labels
from fedprompt.wire import LARGEST_NUMBER


@dataclass(frozen=True, kw_only=True)
class ScheduleWindow:
    """The part of the whole run that a fit covers, for the learning-rate schedule."""

    start: float = 0.0
    end: float = 1.0

    def at(self, step: int, steps: int) -> float:
        """Return the progress of the whole run, 0 to 1, before a step of this fit."""
        return self.start + (self.end - self.start) * step / steps


def fit(
    prompt: Prompt,
    images: EncodedImages,
    labels: Labels,
    config: FitConfig,
    seed: int,
    *,
    window: ScheduleWindow | None = None,
    mu: float = 0.0,
    tied: Sequence[nn.Parameter] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> float:
    """Tune ``prompt`` in place by its objective and return the mean cross-entropy, nats.

    Parameters
    ----------
    images, labels
        Encoded once, for the block that the prompt enters first, and their classes.
    seed
        Of the order of the images and of the dropout: equal seeds give equal bytes.
    window
        Part of the run, the whole of it by default.
    mu, tied
        FedProx's weight, and the tensors it holds to their start; all that are trained by default.
    after_epoch
        Is told each epoch's number, from 1 on, when it is over.

    Raises
    ------
    PromptError
        Nothing is trained by this method, there are no images, or the prompt has diverged.
    BackboneError
        The GPU's memory does not suffice, with half the classes at a time either.
    """
    trained, window = _trained(prompt, labels), window or ScheduleWindow()
    generator = torch.Generator().manual_seed(seed)
    proximal = Proximal(trained if tied is None else tied, mu)
    step = _Step(prompt, images, labels, _optimiser(trained, config), proximal, generator)
    batches = list(_batches(len(labels), config, generator))
    total = 0.0
    for number, chosen in enumerate(batches):
        total += step(chosen, learning_rate(config, window.at(number, len(batches)))) * len(chosen)
        epoch, rest = divmod((number + 1) * config.epochs, len(batches))
        if after_epoch and not rest:
            after_epoch(epoch)
    _check_sound(trained, len(batches))
    return total / (len(labels) * config.epochs)


def learning_rate(config: FitConfig, progress: float) -> float:
    """Return the learning rate at ``progress`` (0 to 1) of the whole run.

    Linear warm-up over the share ``fit.warmup``, then a cosine to zero (CoOp's schedule) or a
    constant.
    """
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-2)
    if config.schedule == "constant":
        return config.learning_rate
    passed = (progress - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


class Proximal:
    """FedProx (arXiv 1812.06127): mu / 2 times the squared distance to the start; 0 = none."""

    def __init__(self, tied: Sequence[nn.Parameter], mu: float) -> None:
        self._tied, self._mu = tied, mu
        self._anchors = [tensor.detach().clone() for tensor in tied]

    def penalty(self) -> Tensor:
        """Return mu / 2 * ||now - start||^2 over all the tensors, a scalar."""
        if not self._mu:
            return self._tied[0].new_zeros(())
        pairs = zip(self._tied, self._anchors, strict=True)
        return self._mu / 2 * torch.stack([((new - old) ** 2).sum() for new, old in pairs]).sum()


@dataclass(frozen=True, eq=False)
class _Step:
    """Take one optimiser step of a site's prompt on chosen images."""

    prompt: Prompt
    images: EncodedImages
    labels: Labels
    optimiser: torch.optim.Optimizer
    proximal: Proximal
    generator: torch.Generator

    def __call__(self, chosen: Tensor, rate: float) -> float:
        """Move the trained tensors at this learning rate and return the batch's loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        backward = partial(self._backward, chosen.to(self.labels.device))
        loss = retry_smaller(self.prompt, backward, self.generator)
        self.optimiser.step()
        return loss

    def _backward(self, chosen: Tensor) -> float:
        """Leave the gradients of one batch and return its loss."""
        self.optimiser.zero_grad()
        loss = self.prompt.backward(self.images[chosen], self.labels[chosen], self.generator)
        extra = self.prompt.penalty() + self.proximal.penalty()
        if extra.requires_grad:
            extra.backward()
        return loss


def _trained(prompt: Prompt, labels: Labels) -> list[nn.Parameter]:
    trained = list(prompt.parameters())
    if not trained:
        raise PromptError("this method trains nothing; use `fedprompt eval`, or method dip or coop")
    if not len(labels):
        raise PromptError("there are no images to train on; a site without images abstains")
    return trained


def _check_sound(trained: list[nn.Parameter], steps: int) -> None:
    """Refuse a prompt that diverged: it is not finite, or lies beyond what a server takes."""
    sizes = [float(tensor.detach().abs().max()) for tensor in trained if tensor.numel()]
    if not all(map(math.isfinite, sizes)):
        raise PromptError(
            f"the prompt is no longer finite after {steps} steps; lower fit.learning_rate"
        )
    if (largest := max(sizes, default=0.0)) > LARGEST_NUMBER:
        raise PromptError(
            f"the prompt diverges: its largest number is {largest:.3g} after {steps} steps, "
            f"expected {LARGEST_NUMBER:,.0f} at most; lower fit.learning_rate"
        )


def _optimiser(trained: list[nn.Parameter], config: FitConfig) -> torch.optim.Optimizer:
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            trained,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(
        trained, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False
    )


def _batches(count: int, config: FitConfig, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.epochs):
        yield from torch.randperm(count, generator=generator).split(config.batch)
