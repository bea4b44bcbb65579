"""Fold a CLIP's image tower and class vectors into one graph: the text tower is gone."""

from typing import Literal

import numpy as np
import onnx

from export.graph import BATCH, Graph
from export.head import write_head
from export.traced import FEATURES, trace_tower
from export.types import ClassVectors
from export.vit.blocks import write_blocks
from export.vit.operators import Operators
from export.vit.ort import Ort
from export.vit.patches import write_patches
from export.vit.portable import Portable
from export.vit.tower import is_plain, read_tower
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

Flavour = Literal["ort", "portable"]
FLAVOURS: dict[Flavour, type[Operators]] = {"ort": Ort, "portable": Portable}


def flavour_of(clip: FrozenClip, asked: Flavour) -> Flavour:
    """Return the flavour a graph of this CLIP can have: a traced tower has portable operators."""
    return asked if is_plain(clip.model.visual) else "portable"


def fuse(
    clip: FrozenClip, class_vectors: ClassVectors, flavour: Flavour = "ort"
) -> onnx.ModelProto:
    """Return the classifier: uint8 ``images`` to ``logits`` and ``image_embeds``.

    Parameters
    ----------
    clip
        Where the image tower, its preprocessing, the logit scale and bias come from.
    class_vectors
        float32 [classes joint], L2-normalised.
    flavour
        ``ort`` has ONNX Runtime's fused operators, for its CPU and CUDA providers; ``portable``
        has those of opset 20 only. A tower that is no plain VisionTransformer is always portable.

    Raises
    ------
    GraphError
        The class vectors do not fit, or torch cannot export the tower.
    """
    visual, pre = clip.model.visual, clip.preprocessing
    _check_class_vectors(class_vectors)
    graph = Graph()
    if is_plain(visual):
        tower = read_tower(visual)
        rows = write_patches(graph, "images", tower, pre)
        features = write_blocks(graph, rows, tower, FLAVOURS[flavour]())
        projection, joint = tower.projection, tower.joint
    else:
        model = trace_tower(visual, pre)
        joint = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        graph.adopt(model, {FEATURES: (BATCH, joint)})
        features, projection = FEATURES, None
    if joint != class_vectors.shape[1]:
        raise GraphError(
            f"the class vectors have {class_vectors.shape[1]} numbers, the image tower gives "
            f"{joint}; they belong to different models"
        )
    write_head(graph, features, projection, class_vectors, clip.logit_scale, clip.logit_bias)
    model = graph.model((BATCH, pre.size, pre.size, 3), ["logits", "image_embeds"])
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_class_vectors(vectors: ClassVectors) -> None:
    found = "no vectors"
    if vectors.ndim == 2 and vectors.size:
        lengths = np.linalg.norm(vectors, axis=1)
        if np.allclose(lengths, 1, atol=1e-3):
            return
        found = f"lengths from {lengths.min():.3g} to {lengths.max():.3g}"
    raise GraphError(
        f"the class vectors have shape {list(vectors.shape)} and {found}; expected "
        "[classes joint], each of length 1"
    )
