"""Tune a prompt on one site's features: the whole local computation of a round."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.config import FitConfig
from client.schedule import rate
from fedprompt.errors import PromptError
from fedprompt.prompts.build import Prompt
from fedprompt.types import ImageFeatures, Labels


@dataclass(frozen=True, kw_only=True)
class Span:
    """Say which part of the whole run this call covers, for the learning-rate schedule."""

    start: float = 0.0
    end: float = 1.0


def fit(
    prompt: Prompt,
    features: ImageFeatures,
    labels: Labels,
    scale: float,
    config: FitConfig,
    seed: int,
    *,
    span: Span | None = None,
    mu: float = 0.0,
) -> float:
    """Tune ``prompt`` in place by cross-entropy over cosine logits and return the mean loss.

    Parameters
    ----------
    prompt
        What is trained; CLIP is not.
    features
        Unit image features.
    labels
        Their classes.
    scale
        CLIP's logit scale.
    config
        Optimiser, rate, epochs, batch.
    seed
        Of the order of the images and of the dropout: equal seeds give equal bytes.
    span
        Part of the run, the whole of it by default.
    mu
        FedProx's weight of half the squared distance to the start (arXiv 1812.06127).

    Raises
    ------
    PromptError
        Nothing is trained by this method, there are no images, or the prompt is no longer finite.
    """
    trained = list(prompt.parameters())
    if not trained:
        raise PromptError("this method trains nothing; use `fedprompt eval`, or method dip or coop")
    if not len(labels):
        raise PromptError("there are no images to train on; a site without images abstains")
    generator = torch.Generator().manual_seed(seed)
    anchors = [tensor.detach().clone() for tensor in trained]
    optimiser, span = _optimiser(trained, config), span or Span()
    batches = list(_batches(len(labels), config, generator))
    total = 0.0
    for step, chosen in enumerate(batches):
        progress = span.start + (span.end - span.start) * step / len(batches)
        for group in optimiser.param_groups:
            group["lr"] = rate(config, progress)
        chosen = chosen.to(labels.device)
        with _autocast(features.device):
            vectors = prompt.class_vectors(generator)
        # outside: bf16 would round logits near 30 to steps of 0.125
        loss = classification_loss(features[chosen], vectors.float(), labels[chosen], scale)
        total += float(loss.detach()) * len(chosen)
        objective = loss + prompt.penalty() + _proximal(trained, anchors, mu)
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in trained):
        raise PromptError(
            f"the prompt is no longer finite after {len(batches)} steps; lower fit.learning_rate"
        )
    return total / (len(labels) * config.epochs)


def classification_loss(
    features: ImageFeatures, vectors: Tensor, labels: Labels, scale: float
) -> Tensor:
    """Return the cross-entropy of scale * cos(image, class), a scalar in nats."""
    return F.cross_entropy((scale * features @ vectors.T).float(), labels)


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


def _proximal(trained: list[nn.Parameter], anchors: list[Tensor], mu: float) -> Tensor:
    if not mu:
        return trained[0].new_zeros(())
    pairs = zip(trained, anchors, strict=True)
    return mu / 2 * torch.stack([((new - old) ** 2).sum() for new, old in pairs]).sum()


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run the tower in bf16 on a GPU that has it (speed-up 6); fp32 stays the reference."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
