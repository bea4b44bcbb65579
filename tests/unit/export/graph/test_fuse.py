from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.fold.constants import Adapter, Constants
from export.graph.builder import BATCH, CONTRIB, Graph
from export.graph.fuse import Features, class_vector_input, flavour_of, fuse, write_head
from export.parity.check import reference_logits
from export.precision import Flavour
from export.runtime.providers import CPU
from export.runtime.session import start
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


Exact = npt.NDArray[np.float64]
SCALE = 50.0


def normal(seed: int, *shape: int) -> Vectors:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(rows: npt.NDArray[Any]) -> Exact:
    exact = rows.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), 1e-12)


def softmax(rows: npt.NDArray[Any]) -> Exact:
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def answer(
    constants: Constants, projection: Vectors | None = None, bias: float = 0.0, domains: int = 0
) -> tuple[npt.NDArray[np.uint8], Vectors, Vectors]:
    """Return images, logits and embeddings of a head on raw pixels.

    Domains are weighed by the softmax of a thousandth of the first pixels.
    """
    width = 24 if projection is None else len(projection)
    graph = Graph()
    raw = graph.add("Cast", ["images"], (BATCH, width), name="raw", to=onnx.TensorProto.FLOAT)
    weights = ""
    if domains:
        ends = [graph.integers(0), graph.integers(domains), graph.integers(1)]
        first = graph.add("Slice", [raw, *ends], (BATCH, domains), name="first")
        small = graph.constant("small", 1e-3)
        first = graph.add("Mul", [first, small], (BATCH, domains), name="scores")
        weights = graph.add("Softmax", [first], (BATCH, domains), name="weights", axis=-1)
    features = Features(name=raw, projection=projection, domains=weights)
    write_head(graph, features, constants, SCALE, bias)
    model = graph.model((BATCH, width), ["logits", "image_embeds"])
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, width), dtype=np.uint8)
    images[0] = 0  # of no length: must not become NaN
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits, embeds = session.run(None, {"images": images})
    return images, logits, embeds


@pytest.mark.parametrize("bias", [0.0, -10.0])
@pytest.mark.parametrize("projected", [False, True])
def test_the_equation(constants: Constants, bias: float, projected: bool) -> None:
    projection = normal(0, 6, 24) if projected else None
    images, logits, embeds = answer(constants, projection, bias)
    features = images.astype(np.float64)
    if projection is not None:
        features = features @ projection
    np.testing.assert_allclose(embeds, unit(features), atol=1e-6)
    expected = SCALE * unit(features) @ constants.class_vectors.T + bias
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_a_probe_has_weights_of_any_length_and_a_bias_for_each_class(bias: float) -> None:
    probe = Constants(class_vectors=normal(1, 5, 24) / 20, bias=normal(2, 5))
    images, logits, _ = answer(probe, bias=bias)
    assert probe.bias is not None
    expected = SCALE * unit(images) @ probe.class_vectors.T + probe.bias + bias
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_features_are_adapted_before_they_are_compared(class_vectors: Vectors) -> None:
    adapter = Adapter(
        hidden=normal(1, 24, 24),
        hidden_bias=normal(2, 24),
        gate=normal(3, 24, 24),
        gate_bias=normal(4, 24),
    )
    images, logits, embeds = answer(Constants(class_vectors=class_vectors, adapter=adapter))
    expected = []
    for z in unit(images):
        scores = adapter.gate @ np.tanh(adapter.hidden @ z + adapter.hidden_bias)
        expected.append(unit(softmax(scores + adapter.gate_bias) * z))
    np.testing.assert_allclose(embeds, expected, atol=2e-6)
    np.testing.assert_allclose(logits, SCALE * np.stack(expected) @ class_vectors.T, atol=1e-4)


@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_each_image_mixes_the_domains_class_vectors(class_vectors: Vectors, bias: float) -> None:
    mixture = unit(normal(1, 3, 5, 24)).astype(np.float32)
    images, logits, embeds = answer(
        Constants(class_vectors=class_vectors, mixture=mixture), bias=bias, domains=3
    )
    weights = softmax(images[:, :3] * 1e-3)
    expected = [
        [
            SCALE * z @ unit(sum(share * m for share, m in zip(w, vectors, strict=True))) + bias
            for vectors in mixture.transpose(1, 0, 2)
        ]
        for z, w in zip(unit(images), weights, strict=True)
    ]
    np.testing.assert_allclose(embeds, unit(images), atol=1e-6)
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_any_number_of_classes_may_be_given(
    tiny_clip: type[FrozenClip], images: npt.NDArray[np.uint8], bias: float | None
) -> None:
    clip = tiny_clip(bias=bias)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((9, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folded = fuse(clip, Constants(class_vectors=vectors[:2]))
    session = start(class_vector_input(folded, clip.logit_scale).SerializeToString(), [CPU])
    for count in (1, 2, 9):
        fed = {"images": images, "class_vectors": vectors[:count]}
        (found,) = session.run(["logits"], fed)
        expected = reference_logits(clip, Constants(class_vectors=vectors[:count]), images)
        assert found.shape == (len(images), count)
        assert np.abs(found - expected).max() < 1e-3


def test_a_graph_that_is_open_already_is_refused(clip: FrozenClip, constants: Constants) -> None:
    model = class_vector_input(fuse(clip, constants), 1.0)
    with pytest.raises(GraphError, match="no class vectors"):
        class_vector_input(model, 1.0)
