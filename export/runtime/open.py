"""Open what `fedprompt export` wrote: a file, a bundle, a page or a model of Triton's."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from export.runtime.classifier import Classifier
from fedprompt.data.decode import MAX_PIXELS
from fedprompt.errors import GraphError

if TYPE_CHECKING:
    from export.runtime.open_vocabulary.classifier import OpenClassifier


BUNDLE = "bundle.json"
# a file that only such a folder has -> where its classifier lies
_CLASSIFIERS = {
    BUNDLE: "classifier.onnx",
    "classifier.json": "classifier.onnx",  # a page for browsers
    "config.pbtxt": "1/model.onnx",  # a model of a Triton repository
}


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


def is_bundle(path: Path) -> bool:
    """Return whether a path is the folder of a bundle."""
    return (path / BUNDLE).is_file()


def classifier_of(path: Path) -> Path:
    """Return the classifier file that a path is, or that lies in its folder.

    Raises
    ------
    GraphError
        Nothing is there, or a folder that `fedprompt export` did not write.
    """
    if path.is_dir():
        for name, classifier in _CLASSIFIERS.items():
            if (path / name).is_file():
                return path / classifier
        raise GraphError(
            f"{path} holds none of {', '.join(_CLASSIFIERS)}; give a classifier.onnx, or a folder "
            "that `fedprompt export` wrote"
        )
    if not path.exists():
        raise GraphError(f"{path} does not exist; give what `fedprompt export` wrote")
    return path
