from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.runtime import io_binding, providers
from export.runtime.io_binding import LARGEST, BoundRunner, runner
from export.runtime.providers import CPU, CUDA
from export.runtime.session import start

Images = npt.NDArray[np.uint8]
CLASSES = 5


@pytest.fixture
def session(classifier_file: Path) -> Any:
    return start(classifier_file.read_bytes(), [CPU], threads=1)


@pytest.fixture(scope="module")
def many() -> Images:
    return np.random.default_rng(5).integers(0, 256, (LARGEST + 3, 32, 32, 3), dtype=np.uint8)


def plain(session: Any, images: Images) -> Any:
    return session.run(["logits"], {"images": images})[0]


class Watched:
    """Pass calls on to a session and note what was bound and run."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.runs: list[tuple[int, str]] = []

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_outputs(self) -> Any:
        return self.session.get_outputs()

    def require(self, shapes: Any) -> None:
        self.session.require(shapes)

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        size = binding.get_outputs()[0].shape()[0]
        try:
            graph = options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            graph = ""
        self.runs.append((size, graph))
        self.session.run_with_iobinding(binding, options)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("count", [1, 3, LARGEST, LARGEST + 3])
def test_bound_buffers_give_the_same_numbers(
    session: Any, many: Images, count: int, graphs: bool
) -> None:
    bound_runner = BoundRunner(session, device="cpu", graphs=graphs)
    found = bound_runner(many[:count], {})
    assert found.shape == (count, CLASSES)
    # kernels may add in another order for another batch size
    np.testing.assert_allclose(found, plain(session, many[:count]), atol=1e-5)


def test_answers_outlive_the_next_run(session: Any, many: Images) -> None:
    bound_runner = BoundRunner(session, device="cpu")
    first = bound_runner(many[:2], {})
    before = first.copy()
    second = bound_runner(many[2:4], {})
    np.testing.assert_array_equal(first, before)
    assert np.abs(first - second).max() > 1e-3


def test_a_graph_s_number_belongs_to_one_size_and_its_buffers_stay(
    session: Any, many: Images
) -> None:
    watched = Watched(session)
    bound_runner = BoundRunner(watched, device="cpu", graphs=True)
    for count in (3, 4, 1, 3):
        bound_runner(many[:count], {})
    assert watched.runs == [(4, "1"), (4, "1"), (1, "2"), (4, "1")]
    assert sorted(bound_runner._buffers) == [1, 4]


def test_without_graphs_nothing_is_filled_up(session: Any, many: Images) -> None:
    watched = Watched(session)
    BoundRunner(watched, device="cpu")(many[:3], {})
    assert watched.runs == [(3, "")]


@pytest.fixture(scope="module")
def given() -> Any:
    """A graph that takes its class vectors [classes 12]: logits are products with the pixels."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=kinds.FLOAT),
        helper.make_node("Reshape", ["f", "flat"], ["rows"]),
        helper.make_node("Transpose", ["class_vectors"], ["columns"]),
        helper.make_node("MatMul", ["rows", "columns"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", kinds.UINT8, ["batch", 2, 2, 3]),
        helper.make_tensor_value_info("class_vectors", kinds.FLOAT, ["classes", 12]),
    ]
    output = helper.make_tensor_value_info("logits", kinds.FLOAT, ["batch", "classes"])
    flat = helper.make_tensor("flat", kinds.INT64, [2], [-1, 12])
    graph = helper.make_graph(nodes, "given", inputs, [output], [flat])
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return start(model.SerializeToString(), [CPU], threads=1)


@pytest.mark.parametrize("graphs", [False, True])
def test_class_vectors_may_change_and_grow_between_runs(given: Any, graphs: bool) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    rows = images.reshape(3, 12).astype(np.float32)
    bound_runner = BoundRunner(given, device="cpu", graphs=graphs)
    for classes in (4, 4, 5):
        vectors = rng.standard_normal((classes, 12), np.float32)
        kept = vectors.copy()
        for _ in range(2):
            found = bound_runner(images, {"class_vectors": vectors})
            np.testing.assert_allclose(found, rows @ vectors.T, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(vectors, kept)


def test_threads_do_not_mix_their_images(session: Any, many: Images) -> None:
    bound_runner = BoundRunner(session, device="cpu")
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        for _ in range(20):
            found[index] = bound_runner(many[index : index + 1], {})

    threads = [Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        expected = plain(session, many[index : index + 1])
        np.testing.assert_allclose(found[index], expected, atol=1e-5)


def test_nvidia_s_providers_are_bound_and_the_cpu_is_not(session: Any, many: Images) -> None:
    assert isinstance(runner(Watched(session)), BoundRunner)
    on_cpu = runner(session)
    assert not isinstance(on_cpu, BoundRunner)
    np.testing.assert_array_equal(on_cpu(many[:2], {}), plain(session, many[:2]))


def test_page_locked_memory_is_the_gpu_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: a stand-in lists one, and its memory is the host's."""
    asked = []

    class Value:
        @staticmethod
        def ortvalue_from_shape_and_type(shape: Any, kind: Any, memory_info: Any) -> Any:
            asked.append(memory_info)
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)

    def place(name: str, memory: str | None) -> Any:
        return SimpleNamespace(ep_name=name, memory_info=lambda kind: memory)

    kinds = SimpleNamespace(HOST_ACCESSIBLE="page-locked")
    here = [place(CPU, "pageable"), place(CUDA, "locked")]
    library = SimpleNamespace(
        OrtValue=Value, OrtDeviceMemoryType=kinds, get_ep_devices=lambda: here
    )
    monkeypatch.setattr(providers, "onnx_runtime", lambda: library)
    value = io_binding._page_locked((2, 3))
    assert asked == ["locked"]
    view = io_binding._view(value)
    view[:] = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(value.numpy(), view)
    here[1] = place(CUDA, None)
    assert io_binding._page_locked((2, 3)) is None
