"""Few-shot (CoOp, arXiv 2109.01134): 1, 2, 4, 8 and 16 training images of each class.

All classes; k shots contain the k - 1 before them. The test images are whole. Centralised.
"""

from fedprompt.experiments.protocols.base_to_new import FEW_SHOT
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally

SHOTS = (1, 2, 4, 8, 16)


def run(trial: Trial) -> Found:
    """Return ``accuracy_1_shot`` to ``accuracy_16_shot``."""
    metrics: Metrics = {}
    for shots in SHOTS:
        tuned = centrally(trial, f"{shots}-shot", {"data.shots": shots})
        scores = tuned.score({})
        metrics[f"accuracy_{shots}_shot"] = scores["accuracy"] if scores else None
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="accuracy_16_shot", defaults=FEW_SHOT)
