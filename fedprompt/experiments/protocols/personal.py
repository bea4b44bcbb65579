"""Personal: how well each site of a federation is served on images like its own.

Each site scores on the images it holds out, under its own prompt where ``prompt.personal`` gives it
one. ``accuracy`` counts each image once, ``local_acc`` each site; ``worst_client_acc`` is the worst
site's; ``global_acc`` is the merged prompt's on the test images.
"""

from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import federated, last_scored, local_accuracy


def run(trial: Trial) -> Found:
    """Return the four metrics above."""
    tuned, records = federated(trial, "run", {})
    scores, scored = tuned.score({}), last_scored(records)
    metrics: Metrics = {
        "local_acc": local_accuracy(scored),
        "worst_client_acc": scored.worst_client_acc,
        "accuracy": scored.accuracy,
        "global_acc": scores["accuracy"] if scores else None,
    }
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="local_acc", defaults={"server.evaluate_every": 0})
