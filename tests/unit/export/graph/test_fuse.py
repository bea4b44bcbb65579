from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.fold.constants import Constants
from export.graph.builder import CONTRIB
from export.graph.fuse import flavour_of, fuse
from export.parity.reference import reference_logits
from export.targets import Flavour
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

Vectors = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

TOWERS: list[dict[str, Any]] = [
    {},
    {"quick_gelu": True},
    {"no_ln_pre": True},
    {"ls_init_value": 0.3},
    {"pool_type": "avg"},
    {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    {"layers": 1},
    {"layers": 1, "pool_type": "avg"},
    {"patch_size": 10},  # an incomplete patch at the edge
    {"act_kwargs": {"approximate": "tanh"}},
    {"bias": -3.0},
]


def run(model: onnx.ModelProto, images: Images) -> tuple[Vectors, Vectors]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    logits, embeds = session.run(["logits", "image_embeds"], {"images": images})
    return logits, embeds


@pytest.mark.parametrize("flavour", ["ort", "portable"])
@pytest.mark.parametrize("tower", TOWERS, ids=str)
def test_the_written_graph_equals_torch(
    tiny_clip: Any, constants: Constants, images: Images, tower: dict[str, Any], flavour: Flavour
) -> None:
    clip = tiny_clip(**tower)
    assert flavour_of(clip, flavour) == flavour
    model = fuse(clip, constants, flavour)
    expected = reference_logits(clip, constants, images)
    for batch in (1, 2, 5):
        logits, embeds = run(model, images[:batch])
        # float32 sums in another order; logits are up to 14
        np.testing.assert_allclose(logits, expected[:batch], atol=2e-5)
        np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("flavour", ["ort", "portable"])
def test_every_tensor_has_a_type_and_no_shape_is_computed(
    clip: FrozenClip, constants: Constants, flavour: Flavour
) -> None:
    graph = fuse(clip, constants, flavour).graph
    typed = {info.name for info in [*graph.value_info, *graph.output]}
    made = {name for node in graph.node for name in node.output if name}
    assert made == typed
    assert not {node.op_type for node in graph.node} & {"Shape", "Expand", "Gather", "Max"}


def test_portable_means_standard_operators_and_ort_means_fused_ones(
    clip: FrozenClip, constants: Constants
) -> None:
    portable = fuse(clip, constants, "portable")
    assert {node.domain for node in portable.graph.node} == {""}
    assert [opset.domain for opset in portable.opset_import] == [""]
    fused = [n.op_type for n in fuse(clip, constants).graph.node if n.domain == CONTRIB]
    assert fused.count("Attention") == 1
    assert fused.count("MultiHeadAttention") == 1  # the last block, one query
    assert fused.count("SkipLayerNormalization") == 4
    assert fused.count("BiasGelu") == 2


def test_declared_shapes_are_those_that_shape_inference_finds(
    clip: FrozenClip, constants: Constants
) -> None:
    model = fuse(clip, constants, "portable")
    declared = {info.name: info.type for info in model.graph.value_info}
    del model.graph.value_info[:]
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for info in found.graph.value_info:
        sizes = [d.dim_value for d in info.type.tensor_type.shape.dim[1:]]
        own = [d.dim_value for d in declared[info.name].tensor_type.shape.dim[1:]]
        assert all(a in (0, b) for a, b in zip(sizes, own, strict=True)), info.name


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((0, 24), np.float32),
        np.ones((3, 24), np.float32),
        np.full((3, 24), np.nan, np.float32),
        np.eye(3, 7, dtype=np.float32),
    ],
)
def test_class_vectors_that_do_not_fit_are_refused(clip: FrozenClip, vectors: Vectors) -> None:
    with pytest.raises(GraphError, match="class vectors"):
        fuse(clip, Constants(class_vectors=vectors))
