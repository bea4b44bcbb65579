"""The classifier: class vectors, logit scale and bias folded into one product.

    logits = s * (z / |z|) C' + b  =  (z / |z|) (s C)' + b

The length |z| is needed, so the projection before it stays.
"""

import numpy as np

from export.graph import BATCH, Graph
from export.types import ClassVectors
from export.vit.tower import Array

SMALLEST = 1e-12  # as torch's normalize


def write_head(
    graph: Graph,
    features: str,
    projection: Array | None,
    class_vectors: ClassVectors,
    scale: float,
    bias: float,
) -> None:
    """Append ``image_embeds`` [batch joint] of length one and ``logits`` [batch classes].

    Parameters
    ----------
    features
        [batch width], not normalised.
    projection
        [width joint], or None where the tower ends in the joint space.
    class_vectors
        [classes joint], L2-normalised.
    """
    classes, joint = class_vectors.shape
    if projection is not None:
        weight = graph.constant("head/projection", projection)
        features = graph.add("MatMul", [features, weight], (BATCH, joint), name="head/projected")
    length = graph.add(
        "ReduceL2", [features, graph.integers(-1)], (BATCH, 1), name="head/length", keepdims=1
    )
    floor = graph.constant("head/smallest", SMALLEST)
    length = graph.add("Clip", [length, floor], (BATCH, 1), name="head/divisor")
    embeds = graph.add("Div", [features, length], (BATCH, joint), name="image_embeds")
    weight = graph.constant("head/classes", class_vectors.T * np.float32(scale))
    if not bias:
        graph.add("MatMul", [embeds, weight], (BATCH, classes), name="logits")
        return
    scaled = graph.add("MatMul", [embeds, weight], (BATCH, classes), name="head/scaled")
    offset = graph.constant("head/bias", bias)
    graph.add("Add", [scaled, offset], (BATCH, classes), name="logits")
