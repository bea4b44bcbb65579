"""Test images of each domain, under their names."""

from collections.abc import Iterator

import numpy as np

from fedprompt.data.image_set import ImageSet
from fedprompt.errors import DataError
from fedprompt.experiments.protocols.protocol import Metrics
from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.experiments.setup import open_experiment


def of_domain(images: ImageSet, domain: int) -> ImageSet:
    """Return the images of one domain."""
    return images.subset(np.flatnonzero(images.domains == domain))


def by_domain(tuned: Tuned) -> Metrics:
    """Return ``accuracy_NAME`` on the test images of each domain, in their order.

    Raises
    ------
    DataError
        The images have no domains, or one has no test image.
    """
    return dict(_scores(tuned))


def _scores(tuned: Tuned) -> Iterator[tuple[str, float | None]]:
    test = open_experiment(tuned.config).test
    if not test.domain_names:
        raise DataError(
            "the images belong to no domains; take data.source = emoji, or a manifest with a "
            "domain column"
        )
    for domain, name in enumerate(test.domain_names):
        chosen = of_domain(test, domain)
        if not len(chosen):
            raise DataError(f"the domain {name!r} has no test image; raise data.test_limit")
        scores = tuned.score({}, chosen)
        yield f"accuracy_{name}", scores["accuracy"] if scores else None
