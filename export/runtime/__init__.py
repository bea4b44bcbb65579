"""Classify images with ONNX Runtime; nothing here imports torch, onnx or pydantic."""

from export.runtime.classifier import Classifier
from export.runtime.prediction import Prediction

__all__ = ["Classifier", "Prediction"]
