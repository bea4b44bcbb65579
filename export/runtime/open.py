"""Open what `fedprompt export` wrote, whether it is a file or a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from export.runtime.artifact_kind import classifier_of, is_bundle
from export.runtime.classifier import Classifier
from fedprompt.data.decode import MAX_PIXELS

if TYPE_CHECKING:
    from export.runtime.open_vocabulary.classifier import OpenClassifier


def open_exported(
    path: str | os.PathLike[str],
    *,
    provider: str | None = None,
    threads: int = 0,
    cuda_graphs: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> "Classifier | OpenClassifier":
    """Return the classifier of a file, a bundle, a page or a model of Triton's.

    The parameters are those of `Classifier`. A bundle serves the version that it names now.

    Raises
    ------
    GraphError
        Nothing of ours lies there, or it is damaged or unsafe.
    ProviderError
        As `Classifier`.
    """
    place = Path(path)
    if not is_bundle(place):
        graph = classifier_of(place)
        return Classifier(
            graph,
            provider=provider,
            threads=threads,
            cuda_graphs=cuda_graphs,
            max_pixels=max_pixels,
        )
    from export.runtime.open_vocabulary.classifier import OpenClassifier

    return OpenClassifier(
        place, provider=provider, threads=threads, cuda_graphs=cuda_graphs, max_pixels=max_pixels
    )
