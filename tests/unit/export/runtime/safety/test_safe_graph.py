import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import export.runtime.safety.safe_graph
from export.graph.builder import parse_model
from export.runtime import Classifier, providers
from export.runtime.open_vocabulary.classifier import OpenClassifier
from export.runtime.providers import CPU
from export.runtime.safety.safe_graph import SafeGraph, read_model
from export.runtime.session import start, start_trusted
from export.targets.classifier import Exported
from fedprompt.errors import GraphError
from tests.hostile_graphs import BOMBS, LATER, hostile_graph


@pytest.fixture(scope="module")
def model(written: Exported) -> onnx.ModelProto:
    return onnx.load(written.path)


@pytest.fixture
def _unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if ONNX Runtime is asked for anything: a bomb must be found before."""

    def forbidden() -> Any:
        raise AssertionError("ONNX Runtime was given the graph")

    monkeypatch.setattr(providers, "onnx_runtime", forbidden)


@pytest.mark.usefixtures("_unopened")
@pytest.mark.parametrize("name", BOMBS)
def test_f26_a_bomb_is_refused_before_onnx_runtime_sees_it(
    model: onnx.ModelProto, name: str
) -> None:
    with pytest.raises(GraphError, match="give a file that `fedprompt export` wrote"):
        start(hostile_graph(name, model), [CPU])


@pytest.mark.parametrize("name", LATER)
def test_f26_what_grows_with_the_batch_is_refused_at_that_batch(
    model: onnx.ModelProto, name: str
) -> None:
    classifier = Classifier(hostile_graph(name, model), provider="cpu", threads=1)
    images = np.zeros((64, 32, 32, 3), np.uint8)
    assert classifier.logits(images[:1]).shape == (1, 5)
    with pytest.raises(GraphError, match="does not run on"):
        classifier.logits(images)
    assert classifier.logits(images[:1]).shape == (1, 5)


def test_buffers_that_stay_are_measured_too(model: onnx.ModelProto) -> None:
    from export.runtime.io_binding import BoundRunner

    session = start(hostile_graph("images_times_images", model), [CPU], threads=1)
    with pytest.raises(GraphError, match="does not run on"):
        BoundRunner(session, device="cpu")(np.zeros((32, 32, 32, 3), np.uint8), {})


@pytest.mark.parametrize("name", ["classifier.onnx", "text_encoder.onnx"])
def test_both_graphs_of_a_bundle_are_measured(bundle: Path, name: str) -> None:
    """Hashes are in the bundle, so whoever sends one makes them fit."""
    from export.runtime.open_vocabulary.bundle import MANIFEST
    from fedprompt.identity import sha256_bytes

    path, manifest = bundle / name, bundle / MANIFEST
    before, graph = path.read_bytes(), onnx.load(path)
    [output] = [o.name for o in graph.graph.output if o.name in ("logits", "class_vectors")]
    for node in graph.graph.node:
        node.output[:] = ["answer" if n == output else n for n in node.output]
    graph.graph.node.append(onnx.helper.make_node("Softplus", ["answer"], [output]))
    path.write_bytes(graph.SerializeToString())
    digests = [sha256_bytes(data).encode() for data in (before, path.read_bytes())]
    manifest.write_bytes(manifest.read_bytes().replace(*digests))
    with pytest.raises(GraphError, match="the operator Softplus"):
        OpenClassifier(bundle).add_class("another")


def test_our_own_graph_is_remembered_not_measured_again(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, calls = SafeGraph(model.SerializeToString()), list[Any]()
    measure = SafeGraph._measure

    def counted(self: SafeGraph, shapes: Any, **settings: Any) -> Any:
        calls.append(shapes)
        return measure(self, shapes, **settings)

    monkeypatch.setattr(SafeGraph, "_measure", counted)
    for count in (1, 2, 1, 2):
        graph.require({"images": (count, 32, 32, 3)})
    assert len(calls) == 2
    assert graph.nodes == len(model.graph.node)


OPSETS = [helper.make_opsetid("", 20)]
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])


def lay_out(folder: Path) -> list[str]:
    """Put a secret beside ``folder``, reach it in several ways, and return the locations."""
    secret = folder.parent / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    folder.mkdir()
    (folder / "plain.bin").write_bytes(secret.read_bytes())
    (folder / "soft.bin").symlink_to(secret)
    os.link(secret, folder / "hard.bin")
    return ["plain.bin", "soft.bin", "hard.bin", "../secret.bin", str(secret), "/etc/hostname"]


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def make_model(nodes: list[onnx.NodeProto], constants: list[TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [X], [Y], constants)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10)


def external_models(location: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Return a model for every place where a tensor can hide."""
    tensor = outside(location)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    yield "initializer", make_model([product], [tensor])
    yield "unused", make_model([helper.make_node("Identity", ["x"], ["y"])], [tensor])
    yield (
        "attribute",
        make_model([helper.make_node("Constant", [], ["w"], value=tensor), product], []),
    )
    result = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2, 2])
    then = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "t", [], [result])
    then.initializer.append(tensor)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "e", [], [result])
    yes = numpy_helper.from_array(np.array(True), "yes")
    branch = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
    yield "subgraph", make_model([branch], [yes])
    sparse = onnx.SparseTensorProto(dims=[2, 2])
    sparse.values.CopyFrom(tensor)
    sparse.values.dims[:] = [4]
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4), "i"))
    hidden = make_model([product], [])
    hidden.graph.sparse_initializer.append(sparse)
    yield "sparse", hidden
    body = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    function = helper.make_function("local", "F", ["a"], ["b"], body, OPSETS)
    calling = make_model([helper.make_node("F", ["x"], ["y"], domain="local")], [])
    calling.functions.append(function)
    calling.opset_import.append(helper.make_opsetid("local", 1))
    yield "function", calling


def custom_operator(operator: str = "Shell", domain: str = "com.evil") -> onnx.ModelProto:
    made = make_model([helper.make_node(operator, ["x"], ["y"], domain=domain)], [])
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


REASONS = {
    "attribute": "constant as an attribute",
    "subgraph": "graph inside an operator",
    "sparse": "sparse tensor",
    "function": "functions",
}
KINDS = ["initializer", "unused", "attribute", "subgraph", "sparse", "function"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the attack: bytes alone let ONNX Runtime read from it."""
    folder = tmp_path / "models"
    lay_out(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("location", ["plain", "soft", "hard", "../secret", "SECRET", "/etc"])
def test_f26_external_data_is_refused_wherever_it_hides(
    folder: Path, kind: str, location: str
) -> None:
    places = {"SECRET": str(folder.parent / "secret.bin"), "/etc": "/etc/hostname"}
    model = dict(external_models(places.get(location, f"{location}.bin")))[kind]
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for opens in (lambda: Classifier(path), lambda: parse_model(path.read_bytes())):
        with pytest.raises(GraphError, match=REASONS.get(kind, "another file")):
            opens()


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "unused"])
def test_f26_onnx_runtime_finds_no_file_even_if_the_structure_were_not_read(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line of defence, alone: the pinned folder of `harden`."""
    model = dict(external_models("plain.bin"))[kind]
    with pytest.raises(GraphError, match="ONNX Runtime refuses"):
        start_trusted(model.SerializeToString(), [CPU])
    monkeypatch.setattr(export.runtime.safety.safe_graph, "_NO_FOLDER", str(folder))
    start_trusted(model.SerializeToString(), [CPU])  # without the pin it is read: the test is real


def test_f26_onnx_runtime_itself_reads_a_hard_link(folder: Path) -> None:
    """Documents the library; the reason why a path is never given to it."""
    path = folder / "model.onnx"
    path.write_bytes(dict(external_models("hard.bin"))["initializer"].SerializeToString())
    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {"x": np.eye(2, dtype=np.float32)})
    np.testing.assert_array_equal(found.reshape(-1), np.arange(4))


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("Shell", "com.evil"),
        ("Shell", "com.microsoft"),
        ("Shell", ""),
        ("Inverse", "com.microsoft"),
        ("EPContext", "com.microsoft"),  # a compiled engine
        ("Relu", "com.microsoft"),
        ("Relu", "ai.onnx"),  # another name of the standard domain, which no export writes
    ],
)
def test_f26_an_operator_that_is_not_on_the_list_is_refused(
    tmp_path: Path, operator: str, domain: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(custom_operator(operator, domain).SerializeToString())
    for opens in (lambda: Classifier(path), lambda: parse_model(path.read_bytes())):
        with pytest.raises(GraphError, match=r"written in version|no exported file has"):
            opens()


def test_f26_external_data_is_found_however_its_key_is_encoded(
    folder: Path, written: Exported
) -> None:
    """A length that is longer than it need be hides a key from whoever looks for its bytes."""
    data = written.path.read_bytes()
    tensor = outside("plain.bin").SerializeToString()
    key = b"\x0a\x08location"
    entry = key + b"\x12\x09plain.bin"
    assert tensor.count(b"\x6a" + bytes([len(entry)]) + entry) == 1
    hidden = entry.replace(key, b"\x0a\x88\x00location")
    tensor = tensor.replace(
        b"\x6a" + bytes([len(entry)]) + entry, b"\x6a" + bytes([len(hidden)]) + hidden
    )
    graph = b"\x2a" + bytes([len(tensor)]) + tensor  # a second graph, which protobuf merges
    with pytest.raises(GraphError, match="another file"):
        Classifier(data + b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(GraphError, match="another file"):
        Classifier(b"\x3a" + bytes([len(graph)]) + graph)


def test_a_class_named_location_is_no_attack(written: Exported) -> None:
    assert "location" in Classifier(written.path).classes


def test_a_symlink_to_the_model_is_followed(classifier_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(classifier_file)
    assert read_model(tmp_path / "link.onnx") == classifier_file.read_bytes()


def test_files_that_are_none_are_refused(classifier_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in ("empty.onnx", "pipe.onnx", "missing.onnx", "."):
        with pytest.raises(GraphError):
            read_model(tmp_path / path)
    with pytest.raises(GraphError):
        read_model(Path("/dev/zero"))
    with pytest.raises(GraphError, match="larger than 100 bytes"):
        read_model(classifier_file, max_bytes=100)


def test_a_model_without_our_metadata_is_explained(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    path = tmp_path / "model.onnx"
    path.write_bytes(make_model([node], []).SerializeToString())
    with pytest.raises(GraphError, match="fedprompt export"):
        Classifier(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(classifier_file: Path, tmp_path: Path, share: float) -> None:
    data = classifier_file.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(GraphError):
        Classifier(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), near=st.booleans())
def test_a_changed_byte_never_crashes(
    classifier_file: Path, tmp_path: Path, place: float, change: int, near: bool
) -> None:
    data = bytearray(classifier_file.read_bytes())
    begin = int(place * (4000 if near else len(data)))
    data[-begin - 1 if near else begin] ^= change  # structure lies near the end, weights before
    path = tmp_path / "changed.onnx"
    path.write_bytes(data)
    with contextlib.suppress(GraphError):
        classifier = Classifier(path, threads=1)
        classifier.logits(np.zeros((1, 32, 32, 3), np.uint8))
    with contextlib.suppress(GraphError):
        parse_model(bytes(data))


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_never_crash(data: bytes) -> None:
    with contextlib.suppress(GraphError):
        start(data, [CPU])
    with contextlib.suppress(GraphError):
        parse_model(data)
