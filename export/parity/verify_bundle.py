"""Repeat a bundle's own test anywhere: every file's hash, stored probes, class vectors."""

from pathlib import Path

import numpy as np

from export.parity.compare import Parity
from export.parity.verify import verify
from export.runtime.classifier import Classifier
from export.runtime.open_vocabulary.bundle import CLASSIFIER, Bundle
from export.runtime.open_vocabulary.text_encoder import TextEncoder

VECTOR_BOUND = 1e-5  # largest difference of a class vector's number from torch's


def verify_bundle(folder: Path, provider: str | None = None) -> tuple[Classifier, Parity, float]:
    """Measure what was exported, whatever was swapped or added since.

    Returns the classifier, its parity, and the largest difference of a class vector from torch's.

    Raises
    ------
    GraphError
        The folder is no bundle, or a file of it was changed.
    """
    bundle = Bundle(folder)
    for name in bundle.manifest.files:
        bundle.read(name)
    first = bundle.state(1)
    classifier = Classifier(bundle.read(CLASSIFIER), provider=provider)
    classifier.serve(first.classes, first.vectors)
    found = TextEncoder.of(bundle).vectors(first.classes, first.templates, first.context)
    return classifier, verify(classifier), float(np.abs(found - first.vectors).max())
