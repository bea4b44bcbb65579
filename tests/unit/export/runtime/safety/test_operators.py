"""Rules for sizes against what ONNX Runtime makes, and the list against what is exported."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.fold.constants import Adapter, Constants, VisualPrompts
from export.fold.load import fold
from export.graph.builder import serialise
from export.graph.fuse import class_vector_input, fuse
from export.graph.text_encoder import read_text_tower, text_encoder
from export.graph.traced_tower import trace_tower
from export.precision import Recipe, rewrite_to
from export.runtime.safety import operators
from export.runtime.safety.safe_graph import SafeGraph
from export.targets import TARGETS
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError, PromptError
from fedprompt.prompts.methods import METHODS
from tests.prompts import tuned

RECIPES = sorted({recipe for target in TARGETS.values() for recipe in target.recipes.values()})
# What only traced towers have: timm's, and open_clip's ResNet
TRACED = {
    "AveragePool", "BatchNormalization", "Conv", "Expand", "Neg", "Range", "Relu", "Unsqueeze",
}  # fmt: skip


def written_by(model: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(node.domain, node.op_type) for node in model.graph.node}


def folds(clip: FrozenClip, vectors: Any) -> Iterator[Constants]:
    """Return everything that a prompt can fold to."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    width, joint = clip.model.visual.conv1.weight.shape[0], vectors.shape[1]
    parts = {
        f.name: drawn(joint) if f.name.endswith("_bias") else drawn(joint, joint)
        for f in fields(Adapter)
    }
    yield Constants(class_vectors=vectors, bias=drawn(len(vectors)))
    yield Constants(class_vectors=vectors, adapter=Adapter(**parts))
    yield Constants(class_vectors=vectors, visual=VisualPrompts(tokens=drawn(2, 3, width)))
    mixture = np.stack([vectors, vectors[::-1]])
    one = VisualPrompts(tokens=drawn(1, 2, width))
    yield Constants(class_vectors=vectors, mixture=mixture, visual=one)


def models(tiny_clip: Any, vectors: Any, images: Any, recipe: Recipe) -> Iterator[onnx.ModelProto]:
    """Return a graph for each fold, activation and pooling."""
    kinds: list[dict[str, Any]] = [
        {}, {"quick_gelu": True}, {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True}, {"no_ln_pre": True},
    ]  # fmt: skip
    for kind in kinds:
        clip = tiny_clip(**kind)
        plain = Constants(class_vectors=vectors)
        for constants in (plain, *(folds(clip, vectors) if not kind else ())):
            model = fuse(clip, constants, recipe.flavour)
            yield rewrite_to(model, recipe.rewrite, images)


@pytest.fixture(scope="module")
def texts(clip: FrozenClip) -> list[onnx.ModelProto]:
    context = np.random.default_rng(0).standard_normal((1, 4, 32)).astype(np.float32)
    text = read_text_tower(clip)
    return [text_encoder(replace(text, end=5), None), text_encoder(text, context)]


@pytest.fixture(scope="module")
def exported(
    tiny_clip: Any, class_vectors: Any, images: Any
) -> dict[Recipe, list[onnx.ModelProto]]:
    return {r: list(models(tiny_clip, class_vectors, images, r)) for r in RECIPES}


def test_the_list_is_what_the_exporter_writes(
    clip: FrozenClip,
    class_vectors: Any,
    exported: dict[Recipe, list[onnx.ModelProto]],
    texts: list[onnx.ModelProto],
) -> None:
    """No more and no less; traced towers are below."""
    opened = class_vector_input(fuse(clip, Constants(class_vectors=class_vectors)), 1.0)
    found = {("com.microsoft", "FastGelu")}  # of a GELU by tanh, which no tower here has
    for model in (opened, *texts, *(model for made in exported.values() for model in made)):
        found |= written_by(model)
    assert found <= operators.names()
    assert operators.names() - found <= {("", name) for name in TRACED}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_folds_to_a_graph_of_the_list(clip: FrozenClip, method: str) -> None:
    settings = {"linear": {}, "fedclip": {}, "adapt": {"tokens": 4, "domains": "ink, oil"}}
    artefact = tuned(clip, method, **settings.get(method, {"tokens": 4}))
    if method == "cocoop":
        with pytest.raises(PromptError):
            fold(artefact, clip)
        return
    constants = fold(artefact, clip)
    for flavour in ("ort", "portable"):
        serialise(fuse(clip, constants, flavour), method)  # type: ignore[arg-type]


def all_shapes(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that ONNX Runtime makes, nothing optimised away."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options)
    return dict(zip(names, (v.shape for v in session.run(names, feeds)), strict=True))


def measured(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    graph = SafeGraph(model.SerializeToString())
    shapes = {name: array.shape for name, array in feeds.items()}
    found = graph._measure(shapes, images=1)
    return {name: value.shape for name, value in found.items()}


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.precision != "bf16"])
def test_sizes_are_those_that_onnx_runtime_makes(
    exported: dict[Recipe, list[onnx.ModelProto]], images: Any, recipe: Recipe
) -> None:
    for model in exported[recipe]:
        serialise(model, "a graph of ours")
        for count in (1, 3):
            feeds = {"images": images[:count]}
            expected = all_shapes(model, feeds)
            found = measured(model, feeds)
            assert {name: found[name] for name in expected} == expected


def test_sizes_of_texts_are_those_that_onnx_runtime_makes(texts: list[onnx.ModelProto]) -> None:
    for model in texts:
        for length in (6, 16):
            feeds = {"tokens": np.tile(np.arange(length), (3, 1)) + 1}
            expected, found = all_shapes(model, feeds), measured(model, feeds)
            assert {name: found[name] for name in expected} == expected


def traced(name: str) -> onnx.ModelProto:
    """Return a timm tower as open_clip exports it, cut down to what fits into a test."""
    from open_clip.timm_model import TimmModel

    torch.manual_seed(0)
    return trace(TimmModel(name, embed_dim=24, image_size=32, pool="", proj="linear").eval())


def trace(visual: Any, size: int = 32) -> onnx.ModelProto:
    size = getattr(visual, "image_size", size)
    size = size[0] if isinstance(size, tuple) else size
    return trace_tower(visual, Preprocessing(size=size))


def resnet() -> onnx.ModelProto:
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet(layers=(1, 1, 1, 1), output_dim=24, heads=2, image_size=32, width=8)
    return trace(tower.eval())


@pytest.mark.parametrize("make", [lambda: traced("test_vit"), resnet], ids=["vit", "resnet"])
def test_a_traced_tower_is_measured_as_it_is_computed(make: Any) -> None:
    model = make()
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for count in (1, 2, 5):
        feeds = {"images": np.zeros((count, size, size, 3), np.uint8)}
        expected, found = all_shapes(model, feeds), measured(model, feeds)
        assert {name: found[name] for name in expected} == expected


# The families of towers in open_clip's list, each by its smallest
FAMILIES = [
    "RN50", "convnext_tiny", "MobileCLIP-S1", "MobileCLIP2-S3", "ViT-B-16-SigLIP", "EVA02-B-16",
    "PE-Core-T-16-384", "vit_relpos_medium_patch16_cls_224", "vit_medium_patch16_gap_256",
    "ViTamin-S", "coca_ViT-B-32",
]  # fmt: skip


@pytest.mark.slow
def test_traced_towers_of_every_family_are_on_the_list() -> None:
    import open_clip

    found = set[str]()
    for name in FAMILIES:
        model = trace(open_clip.create_model(name, load_weights=False).eval().visual)
        graph = SafeGraph(model.SerializeToString())
        size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        for count in (2, 16):
            graph.require({"images": (count, size, size, 3)})
        found |= {operator for _, operator in written_by(model)}
    assert found >= TRACED


# One operator with drawn inputs and attributes: if ONNX Runtime computes it, its size was known


def run_one(node: onnx.NodeProto, inputs: dict[str, Any]) -> None:
    constants = [numpy_helper.from_array(array, name) for name, array in inputs.items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch"])
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "g", [images], outputs, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {"images": np.zeros(1, np.uint8)}
    try:
        expected = all_shapes(model, feeds)
    except Exception:  # ONNX Runtime refuses it: nothing is computed
        return
    del model.graph.output[:]
    try:
        found = measured(model, feeds)
    except GraphError:  # stricter than ONNX Runtime
        return
    assert {name: found[name] for name in expected} == expected


sides = st.lists(st.integers(1, 4), min_size=1, max_size=4)
small = st.integers(-5, 5)


def rows_of(shape: list[int]) -> Any:
    return np.ones(shape, np.float32)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_cutting_and_moving(data: Any) -> None:
    shape = data.draw(sides)
    count = data.draw(st.integers(1, len(shape)))
    ints = st.lists(small, min_size=count, max_size=count)
    inputs = {"x": rows_of(shape)}
    kind = data.draw(
        st.sampled_from(
            ["Slice", "Reshape", "Pad", "Expand", "Squeeze", "Unsqueeze", "ReduceSum", "Split"]
        )
    )
    parts = {"Slice": 4}.get(kind, 1)
    names = []
    for number in range(parts):
        pads = kind == "Pad"
        drawn = data.draw(st.lists(small, min_size=2 * len(shape), max_size=2 * len(shape))
                          if pads else ints)  # fmt: skip
        name = f"numbers_{number}"
        inputs[name] = np.array(drawn, np.int64)
        names.append(name)
    outputs = [f"y{i}" for i in range(count if kind == "Split" else 1)]
    attributes = {"axis": data.draw(small)} if kind == "Split" else {}
    run_one(helper.make_node(kind, ["x", *names], outputs, **attributes), inputs)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_windows(data: Any) -> None:
    around = st.lists(st.integers(0, 3), min_size=4, max_size=4)
    by = st.lists(st.integers(1, 3), min_size=2, max_size=2)
    window = data.draw(by)
    groups = data.draw(st.integers(1, 3))
    inputs = {"x": rows_of([1, 2 * groups, *data.draw(st.tuples(*[st.integers(1, 8)] * 2))])}
    common = {"strides": data.draw(by), "pads": data.draw(around), "dilations": data.draw(by)}
    if data.draw(st.booleans()):
        inputs["w"] = rows_of([3 * groups, 2, *window])
        node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, **common)
    else:
        node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=window, **common)
    run_one(node, inputs)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_two_inputs(data: Any) -> None:
    shapes = [data.draw(st.lists(st.sampled_from([1, 1, 2, 3]), max_size=3)) for _ in range(2)]
    kind = data.draw(st.sampled_from(["Add", "MatMul", "Gemm", "Gather", "GatherND", "Concat"]))
    inputs = {"x": rows_of(shapes[0]), "z": rows_of(shapes[1])}
    attributes: dict[str, Any] = {}
    if kind in ("Gather", "GatherND"):
        inputs["z"] = np.zeros(shapes[1], np.int64)
        name = "axis" if kind == "Gather" else "batch_dims"
        attributes[name] = data.draw(st.integers(0, 2))
    if kind == "Concat":
        attributes["axis"] = data.draw(small)
    if kind == "Gemm":
        attributes = {
            "transA": data.draw(st.integers(0, 1)),
            "transB": data.draw(st.integers(0, 1)),
        }
    run_one(helper.make_node(kind, ["x", "z"], ["y"], **attributes), inputs)
