"""Classify images with ONNX Runtime; nothing here imports torch, onnx or pydantic."""

from typing import TYPE_CHECKING, Any

from export.runtime.classifier import Classifier, Prediction

if TYPE_CHECKING:
    from export.runtime.open_vocabulary.classifier import OpenClassifier

__all__ = ["Classifier", "OpenClassifier", "Prediction"]


def __getattr__(name: str) -> Any:
    """Import `OpenClassifier` when it is asked for: it reads safetensors, the others need not."""
    if name != "OpenClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from export.runtime.open_vocabulary.classifier import OpenClassifier

    return OpenClassifier
