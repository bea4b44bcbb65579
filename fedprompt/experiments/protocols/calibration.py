"""Calibration: how well a prompt knows how sure it may be.

Tuned on the base classes as in base-to-new. ``ece`` (15 bins, Guo et al. 2017) and ``nll`` (nats)
on test images of these classes; ``new_ece`` and ``new_nll`` on those of the new classes.
"""

from fedprompt.experiments.protocols.base_to_new import BASE, FEW_SHOT, NEW
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally


def run(trial: Trial) -> Found:
    """Return ``ece``, ``nll``, ``new_ece`` and ``new_nll``."""
    tuned = centrally(trial, "base", BASE)
    metrics: Metrics = {}
    for prefix, changes in (("", BASE), ("new_", NEW)):
        scores = tuned.score(changes)
        for name in ("ece", "nll"):
            metrics[prefix + name] = scores[name] if scores else None
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="ece", defaults=FEW_SHOT)
