"""Fold a CLIP's image tower and a prompt's constants into one graph: the text tower is gone."""

import onnx

from export.fold.constants import Constants
from export.fold.validate_constants import require_sound
from export.graph.blocks import write_blocks
from export.graph.builder import BATCH, Graph
from export.graph.domain_weights import write_domains
from export.graph.head import Features, write_head
from export.graph.operators import Operators
from export.graph.ort_operators import Ort
from export.graph.patch_embedding import write_patches
from export.graph.portable_operators import Portable
from export.graph.read_tower import is_plain, read_tower
from export.graph.traced_tower import FEATURES, trace_tower
from export.targets import Flavour
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

FLAVOURS: dict[Flavour, type[Operators]] = {"ort": Ort, "portable": Portable}


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
    require_sound(constants)
    graph, pre = Graph(), clip.preprocessing
    write = _write_plain if is_plain(clip.model.visual) else _write_traced
    features, joint = write(graph, clip, constants, flavour)
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
    pooled, entering = write_blocks(graph, rows, tower, FLAVOURS[flavour](), constants.visual)
    if constants.mixture is not None:
        domains = write_domains(graph, entering, tower, len(constants.mixture))
    return Features(name=pooled, projection=tower.projection, domains=domains), tower.joint


def _write_traced(
    graph: Graph,
    clip: FrozenClip,
    constants: Constants,
    flavour: Flavour,  # noqa: ARG001 - always portable
) -> tuple[Features, int]:
    """Take over a tower as torch exports it; return its features and the joint width."""
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
