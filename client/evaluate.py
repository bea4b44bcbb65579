"""Score a prompt on held-out images."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from fedprompt.prompts.build import Prompt
from fedprompt.types import ImageFeatures, Labels, Logits


@dataclass(frozen=True, kw_only=True)
class Score:
    """Hold what a site tells about its held-out images."""

    count: int
    correct: int
    loss: float  # mean cross-entropy, nats


@torch.no_grad()
def predict(prompt: Prompt, features: ImageFeatures, scale: float) -> Logits:
    """Return scale * cos(image, class) [images classes]."""
    return (scale * features @ prompt.class_vectors().T).float()


@torch.no_grad()
def evaluate(prompt: Prompt, features: ImageFeatures, labels: Labels, scale: float) -> Score:
    """Return count, correct top-1 predictions and mean loss; zeros for a site without images."""
    if not len(labels):
        return Score(count=0, correct=0, loss=0.0)
    logits = predict(prompt, features, scale)
    return Score(
        count=len(labels),
        correct=int((logits.argmax(-1) == labels).sum()),
        loss=float(F.cross_entropy(logits, labels)),
    )
