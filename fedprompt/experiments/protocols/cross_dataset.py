"""Cross-dataset (CoCoOp, arXiv 2203.05557): tune on one data set, test on others.

The others have classes of their own; each is given by name and ``[data]`` settings (``--target``).
Centralised, 16 shots.
"""

from fedprompt.errors import ConfigError
from fedprompt.experiments.protocols.base_to_new import FEW_SHOT
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally
from fedprompt.settings.section import Flat


def run(trial: Trial) -> Found:
    """Return ``source_acc``, ``accuracy_NAME`` of each target, and ``target_acc``, their mean."""
    if not trial.targets:
        raise ConfigError(
            "cross-dataset needs the data sets to test on; give --target FILE.toml for each, with "
            "a [data] section"
        )
    tuned = centrally(trial, "source", {})
    scores = tuned.score({})
    source = scores["accuracy"] if scores else None
    found: Metrics = {}
    for name, changes in trial.targets.items():
        scores = tuned.score(_ITS_OWN | changes)
        found[f"accuracy_{name}"] = scores["accuracy"] if scores else None
    return Found({"source_acc": source, "target_acc": mean(found), **found}, tuned)


# what a data set says of itself: the source's must not be taken for a target's
_ITS_OWN: Flat = {"data.class_names": "", "data.subsample_classes": "all"}


def mean(found: Metrics) -> float | None:
    """Return the mean of metrics; None where one is missing."""
    known = [value for value in found.values() if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


PROTOCOL = Protocol(run=run, headline="target_acc", defaults=FEW_SHOT)
