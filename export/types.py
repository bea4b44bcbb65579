"""Shapes as types for the exporter's arrays; the torch-free runtime states them in words."""

import numpy as np
from jaxtyping import Float32, UInt8

ClassVectors = Float32[np.ndarray, "classes joint"]  # L2-normalised
Pictures = UInt8[np.ndarray, "images size size 3"]  # decoded and resized
Answers = Float32[np.ndarray, "images classes"]  # logits
