from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.runtime import Classifier, providers
from export.runtime.open_vocabulary.classifier import OpenClassifier
from export.runtime.providers import CPU
from export.runtime.safety.safe_graph import SafeGraph
from export.runtime.session import start
from export.targets.classifier import Written
from fedprompt.errors import GraphError
from tests.hostile_graphs import BOMBS, LATER, hostile_graph


@pytest.fixture(scope="module")
def model(written: Written) -> onnx.ModelProto:
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
