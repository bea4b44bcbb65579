"""Federated base-to-new (FedTPG, FedPGP): sites with disjoint base classes tune one prompt.

``local_acc``: the sites' own held-out images, told apart among all base classes, each site counted
once, under the site's own prompt where it has one. ``base_acc``, ``new_acc``: test images of all
base and of the new classes, under the merged prompt. CM = (local + HM(base, new)) / 2. The
published numbers of one protocol: 10 sites, 16 shots, 10 rounds of 2 epochs.

One difference to the papers (ours): sites train among all base classes, because all sites of a
federation have one class list; theirs train among their own classes alone.
"""

from fedprompt.experiments.protocols.base_to_new import BASE, base_and_new
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import federated, last_scored, local_accuracy
from fedprompt.settings.section import Flat

PUBLISHED: Flat = {
    "data.partitioner": "disjoint",
    "data.clients": 10,
    "data.shots": 16,
    "fit.epochs": 2,
    "server.rounds": 10,
    "server.evaluate_every": 0,
}


def run(trial: Trial) -> Found:
    """Return ``local_acc``, base and new with their HM, and ``combined_metric``."""
    tuned, records = federated(trial, "run", BASE)
    local = local_accuracy(last_scored(records))
    metrics: Metrics = {"local_acc": local, **base_and_new(tuned)}
    mean = metrics["harmonic_mean"]
    metrics["combined_metric"] = None if mean is None else (local + mean) / 2
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="harmonic_mean", defaults=PUBLISHED)
