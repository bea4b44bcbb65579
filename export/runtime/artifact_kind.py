"""Tell what `fedprompt export` left at a path: a file, a bundle, a page or a model of Triton's."""

from pathlib import Path

from fedprompt.errors import GraphError

BUNDLE = "bundle.json"
# a file that only such a folder has -> where its classifier lies
_CLASSIFIERS = {
    BUNDLE: "classifier.onnx",
    "classifier.json": "classifier.onnx",  # a page for browsers
    "config.pbtxt": "1/model.onnx",  # a model of a Triton repository
}


def is_bundle(path: Path) -> bool:
    """Say whether a path is a bundle's folder."""
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
