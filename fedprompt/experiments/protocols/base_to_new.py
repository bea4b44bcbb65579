"""Base-to-new (CoCoOp, arXiv 2203.05557): tune on the base classes, test on base and on new ones.

The first half of the class list is base. Both accuracies are within their own half; HM is their
harmonic mean. Centralised, as published: 16 shots, 50 epochs.
"""

from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial, harmonic_mean
from fedprompt.experiments.protocols.tune import centrally
from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.settings.section import Flat

BASE: Flat = {"data.subsample_classes": "base"}
NEW: Flat = {"data.subsample_classes": "new"}
FEW_SHOT: Flat = {"data.shots": 16, "fit.epochs": 50}  # CoOp's setting


def run(trial: Trial) -> Found:
    """Return ``base_acc``, ``new_acc`` and ``harmonic_mean``."""
    tuned = centrally(trial, "base", BASE)
    return Found(base_and_new(tuned), tuned)


def base_and_new(tuned: Tuned) -> Metrics:
    """Return the three metrics of a method that was tuned on the base classes."""
    base, new = tuned.score(BASE), tuned.score(NEW)
    found = [scores["accuracy"] if scores else None for scores in (base, new)]
    return {
        "base_acc": found[0],
        "new_acc": found[1],
        "harmonic_mean": harmonic_mean(*found),
    }


PROTOCOL = Protocol(run=run, headline="harmonic_mean", defaults=FEW_SHOT)
