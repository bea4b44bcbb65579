"""Multi-domain (Fed-DPT, arXiv 2310.03103): sites of one domain each tune one prompt.

The classes are the same at all sites, the pictures look different. Test images of each domain,
under the merged prompt.
"""

from fedprompt.experiments.protocols.cross_dataset import mean
from fedprompt.experiments.protocols.domains import by_domain
from fedprompt.experiments.protocols.protocol import Found, Protocol, Trial
from fedprompt.experiments.protocols.tune import federated


def run(trial: Trial) -> Found:
    """Return ``accuracy``, the mean over domains, the worst domain's, and each domain's."""
    tuned, _ = federated(trial, "run", {})
    found = by_domain(tuned)
    known = [value for value in found.values() if value is not None]
    worst = min(known, default=None)
    return Found({"accuracy": mean(found), "worst_domain_acc": worst, **found}, tuned)


PROTOCOL = Protocol(
    run=run,
    headline="accuracy",
    defaults={"data.partitioner": "domain", "server.evaluate_every": 0},
)
