"""A protocol of our own: what merging low-rank prompts loses, and what it costs in accuracy."""

import statistics

from fedprompt.experiments.protocols.trial import Measured, Metrics, Protocol, Trial


def run(trial: Trial) -> Measured:
    """Return ``accuracy`` on the test images, and ``truncation_error``, the mean over rounds."""
    method, records = trial.train_federated({})
    lost = [x.truncation_error for x in records if x.truncation_error is not None]
    metrics: Metrics = {
        "accuracy": method.accuracy({}),
        "truncation_error": statistics.mean(lost),
    }
    return Measured(metrics, method)


PROTOCOL = Protocol(run=run, headline="accuracy")
