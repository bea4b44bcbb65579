"""Score predictions with the metrics of the field, under their usual names."""

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from fedprompt.types import Labels, Logits


def metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    """Return ``accuracy``, ``macro_f1``, ``ece`` (15 bins) and ``nll`` (nats)."""
    predicted, truth = logits.argmax(-1).cpu().numpy(), labels.cpu().numpy()
    present = np.unique(truth)
    calibration = multiclass_calibration_error(logits.softmax(-1), labels, logits.shape[1], 15)
    return {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(
            f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
        ),
        "ece": float(calibration),
        "nll": float(F.cross_entropy(logits, labels)),
    }


def confusion(logits: Logits, labels: Labels) -> list[list[int]]:
    """Return counts [classes classes], rows are the true classes."""
    counts = confusion_matrix(
        labels.cpu().numpy(), logits.argmax(-1).cpu().numpy(), labels=range(logits.shape[1])
    )
    rows: list[list[int]] = counts.tolist()
    return rows


def spread_choice(labels: Labels, count: int, seed: int) -> list[int]:
    """Return up to ``count`` indices that go through the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    turns: dict[int, int] = {}
    ranked = []
    for index in order.tolist():
        label = int(labels[index])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], label, index))
    return [index for _, _, index in sorted(ranked)[:count]]
