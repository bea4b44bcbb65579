"""Fuse a CLIP's image tower and a prompt's constants into one classifier graph.

The head folds class vectors, logit scale and biases into one product:

    logits = s * a(z / |z|) C' + b  =  a(z / |z|) (s C)' + b

The length |z| is needed, so the projection before it stays. a is a feature adapter, or nothing.
Where each image mixes the class vectors of several domains, C is made for each image.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.fold.constants import Adapter, Constants, validate_constants
from export.fold.types import DomainVectors
from export.graph.builder import BATCH, Graph
from export.graph.image_tower import write_blocks, write_domain_weights, write_patches
from export.graph.operators import FLAVOURS
from export.graph.read_tower import Array, is_plain, read_tower
from export.precision import Flavour
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

CLASS_VECTORS = "class_vectors"  # the input of a classifier whose classes can change
_FOLDED = "head/classes"  # the constant (s C)'


@dataclass(frozen=True, kw_only=True)
class Features:
    """What an image tower hands to the head.

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


def flavour_of(clip: FrozenClip, asked: Flavour) -> Flavour:
    """Return the flavour a graph of this CLIP can have: a traced tower has portable operators."""
    return asked if is_plain(clip.model.visual) else "portable"


def fuse(clip: FrozenClip, constants: Constants, flavour: Flavour = "ort") -> onnx.ModelProto:
    """Return the classifier: uint8 ``images`` to ``logits`` and ``image_embeds``.

    Parameters
    ----------
    clip
        Where the image tower, its preprocessing, the logit scale and bias come from.
    constants
        What the prompt folds to.
    flavour
        ``ort`` has ONNX Runtime's fused operators, for its CPU and CUDA providers; ``portable``
        has those of opset 20 only. A tower that is no plain VisionTransformer is always portable.

    Raises
    ------
    GraphError
        The constants do not fit, or torch cannot export the tower.
    """
    validate_constants(constants)
    graph, pre = Graph(), clip.preprocessing
    if is_plain(clip.model.visual):
        features, joint = _write_plain(graph, clip, constants, flavour)
    else:
        features, joint = _write_traced(graph, clip, constants)
    if joint != constants.class_vectors.shape[1]:
        raise GraphError(
            f"the class vectors have {constants.class_vectors.shape[1]} numbers, the image tower "
            f"gives {joint}; they belong to different models"
        )
    write_head(graph, features, constants, clip.logit_scale, clip.logit_bias)
    model = graph.model((BATCH, pre.size, pre.size, 3), ["logits", "image_embeds"])
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_plain(
    graph: Graph, clip: FrozenClip, constants: Constants, flavour: Flavour
) -> tuple[Features, int]:
    """Append a tower that is known in every detail; return its features and the joint width."""
    tower, domains = read_tower(clip.model.visual), ""
    if constants.mixture is not None and len(tower.blocks) == 1:
        raise GraphError(
            "domains are mixed by what prompts become before the last block; the image tower has "
            "one block only: use another backbone"
        )
    rows = write_patches(graph, "images", tower, clip.preprocessing)
    pooled, entering = write_blocks(graph, rows, tower, FLAVOURS[flavour](graph), constants.visual)
    if constants.mixture is not None:
        domains = write_domain_weights(graph, entering, tower, len(constants.mixture))
    return Features(name=pooled, projection=tower.projection, domains=domains), tower.joint


def _write_traced(graph: Graph, clip: FrozenClip, constants: Constants) -> tuple[Features, int]:
    """Adopt a tower as torch exports it; return its features and the joint width."""
    from export.graph.traced_tower import FEATURES, trace_tower  # most CLIPs do without

    visual = clip.model.visual
    if constants.mixture is not None:
        raise GraphError(
            "domains are mixed in plain VisionTransformers only, the image tower is a "
            f"{type(visual).__name__} of another kind; use another backbone"
        )
    model = trace_tower(visual, clip.preprocessing, constants.prompts(clip.device))
    joint = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    graph.adopt(model, {FEATURES: (BATCH, joint)})
    return Features(name=FEATURES), joint


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
    if constants.adapter is None:
        embeds = graph.l2_normalise(name, name="image_embeds")
    else:
        embeds = graph.l2_normalise(name, name="head/unit")
        embeds = _write_adapter(graph, embeds, constants.adapter, name="image_embeds")
    added = np.float32(bias) + (0 if constants.bias is None else constants.bias)
    target = "head/scaled" if np.any(added) else "logits"
    if constants.mixture is not None:
        _write_mixture(graph, embeds, features.domains, constants.mixture, scale, name=target)
    else:
        weight = graph.constant(_FOLDED, constants.class_vectors.T * np.float32(scale))
        graph.add("MatMul", [embeds, weight], (BATCH, classes), name=target)
    if np.any(added):
        offset = graph.constant("head/bias", added)
        graph.add("Add", [target, offset], (BATCH, classes), name="logits")


def _write_adapter(graph: Graph, rows: str, adapter: Adapter, *, name: str) -> str:
    """Append FedCLIP's feature adapter behind unit rows z [batch joint] (arXiv 2302.13485).

    z' = (a * z) / |a * z|,    a = softmax(G tanh(H z + h) + g)
    """
    shape = (BATCH, len(adapter.hidden_bias))
    hidden = graph.constant("adapter/hidden/weight", adapter.hidden)
    bias = graph.constant("adapter/hidden/bias", adapter.hidden_bias)
    inner = graph.add("Gemm", [rows, hidden, bias], shape, name="adapter/hidden", transB=1)
    inner = graph.add("Tanh", [inner], shape, name="adapter/active")
    gate = graph.constant("adapter/gate/weight", adapter.gate)
    bias = graph.constant("adapter/gate/bias", adapter.gate_bias)
    inner = graph.add("Gemm", [inner, gate, bias], shape, name="adapter/gate", transB=1)
    weights = graph.add("Softmax", [inner], shape, name="adapter/weights", axis=-1)
    weighed = graph.add("Mul", [weights, rows], shape, name="adapter/weighed")
    return graph.l2_normalise(weighed, name=name)


def _write_mixture(
    graph: Graph, embeds: str, domains: str, mixture: DomainVectors, scale: float, *, name: str
) -> str:
    """Append scaled cosines [batch classes], the class vectors mixed for each image (ADAPT).

    With an image's feature z [joint] of length one and its weights w [domains] of the domains,

        c_k = sum_i w_i M_ik,    logit_k = s z . c_k / |c_k|

    An image's class vectors exist while it is computed: classes * joint numbers. Source: arXiv
    2310.03103.
    """
    count, classes, joint = mixture.shape
    flat = graph.constant("mixture/vectors", mixture.reshape(count, classes * joint))
    mixed = graph.add("MatMul", [domains, flat], (BATCH, classes * joint), name="mixture/flat")
    shape = (BATCH, classes, joint)
    mixed = graph.add(
        "Reshape", [mixed, graph.integers(0, classes, joint)], shape, name="mixture/mixed"
    )
    unit = graph.l2_normalise(mixed, name="mixture/unit")
    factor = graph.constant("mixture/scale", np.float32(scale))
    scaled = graph.add("Mul", [embeds, factor], (BATCH, joint), name="mixture/scaled")
    column = graph.add(
        "Reshape", [scaled, graph.integers(0, joint, 1)], (BATCH, joint, 1), name="mixture/column"
    )
    cosines = graph.add("MatMul", [unit, column], (BATCH, classes, 1), name="mixture/cosines")
    return graph.add("Reshape", [cosines, graph.integers(0, classes)], (BATCH, classes), name=name)


def class_vector_input(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """Make the class vectors of a fused classifier an input: logits = s z C' + b with C given.

    One Gemm with the input ``class_vectors`` [classes joint] replaces the folded product. The model
    is changed in place.

    Raises
    ------
    GraphError
        The graph has no class vectors of its own.
    """
    graph = model.graph
    products = [(i, node) for i, node in enumerate(graph.node) if _FOLDED in node.input]
    if len(products) != 1:
        raise GraphError("the graph holds no class vectors that could become an input")
    [(place, product)] = products
    [folded] = [tensor for tensor in graph.initializer if tensor.name == _FOLDED]
    joint = folded.dims[0]
    gemm = helper.make_node(
        "Gemm",
        [product.input[0], CLASS_VECTORS],
        product.output,
        product.name,
        alpha=float(scale),
        transB=1,
    )
    graph.initializer.remove(folded)
    graph.node.remove(product)
    graph.node.insert(place, gemm)
    vectors = helper.make_tensor_value_info(CLASS_VECTORS, TensorProto.FLOAT, ("classes", joint))
    graph.input.append(vectors)
    for info in (*graph.value_info, *graph.output):
        if info.name in (product.output[0], "logits"):
            info.type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.checker.check_model(model, full_check=True)
    return model
