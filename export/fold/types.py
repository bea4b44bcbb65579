"""Shapes as types for the exporter's arrays; the torch-free runtime states them in words."""

import numpy as np
from jaxtyping import Float32, UInt8

ClassVectors = Float32[np.ndarray, "classes joint"]  # L2-normalised, but for a probe's
DomainVectors = Float32[np.ndarray, "domains classes joint"]  # class vectors of each domain
Bias = Float32[np.ndarray, " classes"]  # of the logits
Square = Float32[np.ndarray, "joint joint"]  # a linear map within the joint space
Joint = Float32[np.ndarray, " joint"]  # its bias
TextTokens = Float32[
    np.ndarray, "layers length width"
]  # what enters the text tower, block by block
VisualTokens = Float32[np.ndarray, "layers length width"]  # one matrix for each prompted block
Pictures = UInt8[np.ndarray, "images size size 3"]  # decoded and resized
Logits = Float32[np.ndarray, "images classes"]
