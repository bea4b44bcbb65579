"""Protocols that tune over the simulated sites of a federation."""

from fedprompt.experiments.protocols.centralised import BASE, base_and_new
from fedprompt.experiments.protocols.trial import (
    Measured,
    Metrics,
    Protocol,
    Trial,
    accuracy_by_domain,
    last_scored,
    local_accuracy,
    mean,
)
from fedprompt.settings.section import Flat

_ONLY_LAST: Flat = {"server.evaluate_every": 0}  # sites score the last round's prompt
_FEDTPG: Flat = _ONLY_LAST | {
    "data.partitioner": "disjoint",
    "data.clients": 10,
    "data.shots": 16,
    "fit.epochs": 2,
    "server.rounds": 10,
}


def federated_base_to_new(trial: Trial) -> Measured:
    """Tune one prompt over sites with disjoint base classes (FedTPG, FedPGP).

    ``local_acc``: the sites' own held-out images, classified among all base classes, each site
    counted once, under the site's own prompt where it has one. ``base_acc``, ``new_acc``: test
    images of all base and of the new classes, under the merged prompt. ``combined_metric`` =
    (local + HM(base, new)) / 2. The defaults are the published ones: 10 sites, 16 shots, 10 rounds
    of 2 epochs.

    One difference to the papers (ours): sites train among all base classes, because all sites of a
    federation have one class list; theirs train among their own classes alone.
    """
    method, records = trial.train_federated(BASE)
    local = local_accuracy(last_scored(records))
    metrics: Metrics = {"local_acc": local, **base_and_new(method)}
    both = metrics["harmonic_mean"]
    metrics["combined_metric"] = None if both is None else (local + both) / 2
    return Measured(metrics, method)


def multi_domain(trial: Trial) -> Measured:
    """Tune one prompt over sites of one domain each (Fed-DPT, arXiv 2310.03103).

    The classes are the same at all sites, the images look different. On the test images, under the
    merged prompt: ``accuracy``, the mean over domains, ``worst_domain_acc``, and each domain's.
    """
    method, _ = trial.train_federated({})
    domains = accuracy_by_domain(method)
    worst = min((value for value in domains.values() if value is not None), default=None)
    return Measured({"accuracy": mean(domains), "worst_domain_acc": worst, **domains}, method)


def personal(trial: Trial) -> Measured:
    """Measure how well each site of a federation is served on images like its own.

    Each site scores on the images it holds out, under its own prompt where ``prompt.personal``
    gives it one. ``accuracy`` counts each image once, ``local_acc`` each site;
    ``worst_client_acc`` is the worst site's; ``global_acc`` is the merged prompt's on the test
    images.
    """
    method, records = trial.train_federated({})
    global_accuracy, scored = method.accuracy({}), last_scored(records)
    metrics: Metrics = {
        "local_acc": local_accuracy(scored),
        "worst_client_acc": scored.worst_client_acc,
        "accuracy": scored.accuracy,
        "global_acc": global_accuracy,
    }
    return Measured(metrics, method)


FEDERATED = {
    "federated-base-to-new": Protocol(
        run=federated_base_to_new, headline="harmonic_mean", defaults=_FEDTPG
    ),
    "multi-domain": Protocol(
        run=multi_domain,
        headline="accuracy",
        defaults=_ONLY_LAST | {"data.partitioner": "domain"},
    ),
    "personal": Protocol(run=personal, headline="local_acc", defaults=_ONLY_LAST),
}
