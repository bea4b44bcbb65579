"""Repeat a file's own test anywhere: seeded probes, the answers torch gave, no torch."""

import numpy as np

from export.parity.compare import Logits, Parity, compare_probes
from export.parity.probes import extreme_images, probe_images
from export.runtime.classifier import Classifier
from fedprompt.errors import GraphError, ParityError


def verify(classifier: Classifier) -> Parity:
    """Return the parity of a loaded file with the answers stored in it, by its precision's bounds.

    Raises
    ------
    GraphError
        The file holds no probes, not as many classes as its answers, or an unknown precision.
    ParityError
        Its answer to black, white or noise is not a number.
    """
    metadata = classifier.metadata
    if metadata.probes is None:
        raise GraphError("the file holds no probes to check; export it again")
    count, size = len(metadata.probes.logits), metadata.preprocessing.size
    require_finite(classifier.logits(extreme_images(size)))
    images = probe_images(metadata.probes.seed, count, size)
    return compare_probes(classifier.logits(images), metadata.probes.logits, metadata.precision)


def require_finite(logits: Logits) -> None:
    """Refuse answers to extreme images that are not numbers.

    Raises
    ------
    ParityError
        Some are not.
    """
    if not np.isfinite(logits).all():
        raise ParityError(
            "the answer to a black, white or noisy image is not a number: some value overflows; "
            "export in fp32"
        )
