"""Repeat a file's own test anywhere: seeded probes, the answers torch gave, no torch."""

from export.parity import Parity, compare
from export.probes import probe_images
from export.runtime.classifier import Classifier
from fedprompt.errors import GraphError


def verify(classifier: Classifier) -> Parity:
    """Return the parity of a loaded file with the answers stored in it.

    Raises
    ------
    GraphError
        The file holds no probes, or not as many classes as its answers.
    """
    metadata = classifier.metadata
    if metadata.probes is None:
        raise GraphError("the file holds no probes to check; export it again")
    count = len(metadata.probes.logits)
    images = probe_images(metadata.probes.seed, count, metadata.preprocessing.size)
    return compare(classifier.logits(images), metadata.probes.logits)
