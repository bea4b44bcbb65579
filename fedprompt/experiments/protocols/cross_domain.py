"""Cross-domain (CoOp's domain generalisation): tune in one domain, test in the others.

The classes are the same. The first domain of ``data.source`` is the source; or, with ``--target``,
the whole of it, and each target is another set of images of these classes, or of some of them.
Centralised, 16 shots.
"""

from fedprompt.data.image_set import ImageSet
from fedprompt.data.shots import few_shot
from fedprompt.experiments.protocols.base_to_new import FEW_SHOT
from fedprompt.experiments.protocols.cross_dataset import mean
from fedprompt.experiments.protocols.cross_dataset import run as other_sets
from fedprompt.experiments.protocols.domains import by_domain, of_domain
from fedprompt.experiments.protocols.protocol import Found, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally


def run(trial: Trial) -> Found:
    """Return ``source_acc``, ``target_acc`` and the accuracy in each domain."""
    if trial.targets:
        return other_sets(trial)
    data = trial.config.data

    def first_domain(images: ImageSet) -> ImageSet:
        """Take the first domain's images, and then the shots, which are of this domain."""
        own = of_domain(images, 0)
        shots = few_shot(own.labels, data.shots, data.seed) if data.shots else range(len(own))
        return own.subset(shots)

    tuned = centrally(trial, "source", {"data.shots": 0}, first_domain)
    found = by_domain(tuned)
    source, *others = found
    return Found(
        {
            "source_acc": found[source],
            "target_acc": mean({name: found[name] for name in others}),
            **found,
        },
        tuned,
    )


PROTOCOL = Protocol(run=run, headline="target_acc", defaults=FEW_SHOT)
