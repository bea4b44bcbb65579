"""Class vectors of several domains, mixed for each image (ADAPT, arXiv 2310.03103).

With an image's feature z of length one and its weights w of the domains
(`export.graph.domain_weights`),

    c_k = sum_i w_i M_ik,    logit_k = s z . c_k / |c_k|
"""

import numpy as np

from export.fold.types import DomainVectors
from export.graph.builder import BATCH, Graph
from export.graph.l2_normalise import write_unit


def write_mixture(
    graph: Graph, embeds: str, domains: str, mixture: DomainVectors, scale: float, *, name: str
) -> str:
    """Append scaled cosines [batch classes] of ``embeds`` [batch joint].

    ``domains`` is [batch domains]. Nodes and tensors are few; an image's class vectors are there
    while it is computed: classes * joint numbers.
    """
    count, classes, joint = mixture.shape
    flat = graph.constant("mixture/vectors", mixture.reshape(count, classes * joint))
    mixed = graph.add("MatMul", [domains, flat], (BATCH, classes * joint), name="mixture/flat")
    shape = (BATCH, classes, joint)
    mixed = graph.add(
        "Reshape", [mixed, graph.integers(0, classes, joint)], shape, name="mixture/mixed"
    )
    unit = write_unit(graph, mixed, shape, name="mixture/unit")
    factor = graph.constant("mixture/scale", np.float32(scale))
    scaled = graph.add("Mul", [embeds, factor], (BATCH, joint), name="mixture/scaled")
    column = graph.add(
        "Reshape", [scaled, graph.integers(0, joint, 1)], (BATCH, joint, 1), name="mixture/column"
    )
    cosines = graph.add("MatMul", [unit, column], (BATCH, classes, 1), name="mixture/cosines")
    return graph.add("Reshape", [cosines, graph.integers(0, classes)], (BATCH, classes), name=name)
