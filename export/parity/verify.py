"""Repeat a file's own test anywhere, without torch: seeded probes, the answers torch gave."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.parity.compare import (
    Parity,
    compare_probes,
    extreme_images,
    probe_images,
    require_finite,
)
from export.runtime.classifier import Classifier
from export.runtime.open import classifier_of, is_bundle
from export.runtime.safety.safe_graph import SafeGraph, read_model
from fedprompt.errors import GraphError, ParityError

_VECTOR_BOUND = 1e-5  # largest difference of a class vector's number from torch's


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


class Verification(NamedTuple):
    """What was found of an exported file or folder.

    Attributes
    ----------
    structure
        A line on the graphs' operators.
    classifier
        As it was exported.
    parity
        With the stored probes.
    vector_difference
        Largest difference of a class vector's number from torch's; of a bundle only.
    """

    structure: str
    classifier: Classifier
    parity: Parity
    vector_difference: float | None = None


def verify_exported(path: Path, provider: str | None = None) -> Verification:
    """Check every operator and tensor, and repeat the test of a file or a folder.

    A bundle is measured as it was exported, whatever was swapped or added since.

    Raises
    ------
    GraphError
        It is none of ours, is unsafe, or a file of it was changed.
    ParityError
        See `verify`.
    ProviderError
        The provider does not run.
    """
    graph = classifier_of(path)
    if not is_bundle(path):
        structure = _check_structure(graph)
        classifier = Classifier(graph, provider=provider)
        return Verification(structure, classifier, verify(classifier))
    # imported here: a bundle needs safetensors, a file does not
    from export.runtime.open_vocabulary.bundle import CLASSIFIER, TEXT_ENCODER, Bundle
    from export.runtime.open_vocabulary.text_encoder import TextEncoder

    structure = "; ".join(_check_structure(path / name) for name in (CLASSIFIER, TEXT_ENCODER))
    bundle = Bundle(path)
    for name in bundle.manifest.files:
        bundle.read(name)
    first = bundle.state(1)
    classifier = Classifier(bundle.read(CLASSIFIER), provider=provider)
    classifier.serve(first.classes, first.vectors)
    vectors = TextEncoder.of(bundle).vectors(first.classes, first.templates, first.context)
    difference = float(np.abs(vectors - first.vectors).max())
    return Verification(structure, classifier, verify(classifier), difference)


def _check_structure(path: Path) -> str:
    try:
        return f"{SafeGraph(read_model(path)).nodes} operators, all allowed"
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None


def require_vectors(difference: float) -> None:
    """Refuse class vectors that differ from torch's by too much.

    Raises
    ------
    ParityError
        They do.
    """
    if not difference <= _VECTOR_BOUND:
        raise ParityError(
            f"class vectors differ from torch's by {difference:.3g}; expected "
            f"at most {_VECTOR_BOUND:g}"
        )
