"""A protocol of our own: what merging low-rank prompts loses, and what it costs in accuracy."""

import statistics

from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import federated


def run(trial: Trial) -> Found:
    """Return ``accuracy`` on the test images, and ``truncation_error``, the mean over rounds."""
    tuned, records = federated(trial, "run", {})
    scores = tuned.score({})
    lost = [x.truncation_error for x in records if x.truncation_error is not None]
    metrics: Metrics = {
        "accuracy": scores["accuracy"] if scores else None,
        "truncation_error": statistics.mean(lost),
    }
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="accuracy")
