"""The classifier: class vectors, logit scale and biases folded into one product.

    logits = s * a(z / |z|) C' + b  =  a(z / |z|) (s C)' + b

The length |z| is needed, so the projection before it stays. a is a feature adapter, or nothing
(`export.graph.adapter`). Where each image mixes the class vectors of several domains, C is made for
each image (`export.graph.mixture`).
"""

from dataclasses import dataclass

import numpy as np

from export.fold.constants import Constants
from export.graph.adapter import write_adapter
from export.graph.builder import BATCH, Graph
from export.graph.l2_normalise import write_unit
from export.graph.mixture import write_mixture
from export.graph.read_tower import Array


@dataclass(frozen=True, kw_only=True)
class Features:
    """Name what an image tower leaves for the head.

    Attributes
    ----------
    name
        [batch width], not normalised.
    projection
        [width joint], or None where the tower ends in the joint space.
    domains
        [batch domains], an image's weights of the domains; empty where there are none.
    """

    name: str
    projection: Array | None = None
    domains: str = ""


def write_head(
    graph: Graph, features: Features, constants: Constants, scale: float, bias: float
) -> None:
    """Append ``image_embeds`` [batch joint] of length one and ``logits`` [batch classes].

    ``image_embeds`` is what the class vectors are compared with: behind the adapter, if any.
    ``scale`` and ``bias`` are the CLIP's own.
    """
    (classes, joint), name = constants.class_vectors.shape, features.name
    if features.projection is not None:
        weight = graph.constant("head/projection", features.projection)
        name = graph.add("MatMul", [name, weight], (BATCH, joint), name="head/projected")
    adapter = constants.adapter
    unit = "image_embeds" if adapter is None else "head/unit"
    embeds = write_unit(graph, name, (BATCH, joint), name=unit)
    if adapter is not None:
        embeds = write_adapter(graph, embeds, adapter, name="image_embeds")
    added = np.float32(bias) + (0 if constants.bias is None else constants.bias)
    target = "head/scaled" if np.any(added) else "logits"
    if constants.mixture is not None:
        write_mixture(graph, embeds, features.domains, constants.mixture, scale, name=target)
    else:
        weight = graph.constant("head/classes", constants.class_vectors.T * np.float32(scale))
        graph.add("MatMul", [embeds, weight], (BATCH, classes), name=target)
    if np.any(added):
        offset = graph.constant("head/bias", added)
        graph.add("Add", [target, offset], (BATCH, classes), name="logits")
