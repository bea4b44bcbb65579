"""Score a prompt on held-out images."""

from dataclasses import dataclass

import torch

from client.features.oom_retry import retry_smaller
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.prompts.build import Prompt
from fedprompt.prompts.method import cross_entropy
from fedprompt.types import Labels, Logits


@dataclass(frozen=True, kw_only=True)
class Score:
    """Hold what a site tells about its held-out images."""

    count: int
    correct: int
    loss: float  # mean cross-entropy, nats


def predict(prompt: Prompt, images: EncodedImages) -> Logits:
    """Return logits [images classes]; out of memory, half as much at a time."""
    return retry_smaller(prompt, lambda: prompt.predict(images))


@torch.no_grad()
def evaluate(prompt: Prompt, images: EncodedImages, labels: Labels) -> Score:
    """Return count, correct top-1 predictions and mean loss; zeros for a site without images."""
    if not len(labels):
        return Score(count=0, correct=0, loss=0.0)
    logits = predict(prompt, images)
    return Score(
        count=len(labels),
        correct=int((logits.argmax(-1) == labels).sum()),
        loss=float(cross_entropy(logits, labels)),
    )
