"""Run a session on buffers that stay: fixed addresses on the device, page-locked ones on the host.

What CUDA needs to run without copies through pageable memory, and to record its work as a graph:
shapes and addresses may then not change, one batch size is one graph, and nobody else may run the
session meanwhile. Sources: https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
and ``gpu_graph_id`` in onnxruntime_run_options_config_keys.h.
"""

import ctypes
from collections.abc import Callable, Mapping
from itertools import count
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from export.runtime import providers

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Feeds = Mapping[str, npt.NDArray[np.float32]]  # what a graph takes beside the images
Run = Callable[[Pixels, Feeds], Logits]

SIZES = (1, 2, 4, 8, 16, 32)  # batches that have a graph; others are filled up with black images
LARGEST = SIZES[-1]  # images on the device at a time


def runner(session: Any, *, cuda_graphs: bool = False) -> Run:
    """Return what computes logits [batch classes] of images uint8 [batch size size 3]."""
    if session.get_providers()[0] in providers.NVIDIA:
        return BoundRunner(session, device="cuda", graphs=cuda_graphs)
    return lambda images, feeds: np.asarray(session.run(["logits"], {"images": images, **feeds})[0])


class BoundRunner:
    """Run a session on one set of buffers for each batch size.

    Parameters
    ----------
    session
        Of a classifier.
    device
        ``cuda``, or ``cpu``, where it gives the same numbers and gains nothing.
    graphs
        Run batches of `SIZES` only, each with a number of its own that CUDA records under.
    """

    def __init__(self, session: Any, *, device: str = "cuda", graphs: bool = False) -> None:
        self._session, self._device, self._graphs = session, device, graphs
        self._numbers = count(1)  # of graphs: 0 is ONNX Runtime's own
        self._buffers: dict[int, _Buffers] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of what the buffers hold beside images
        self._lock = Lock()

    def __call__(self, images: Pixels, feeds: Feeds) -> Logits:
        """Return logits [batch classes]; a batch of any size, but none."""
        parts = [images[at : at + LARGEST] for at in range(0, len(images), LARGEST)]
        with self._lock:
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != self._shapes:
                self._buffers, self._shapes = {}, shapes
            return np.concatenate([self._part(part, feeds) for part in parts])

    def _part(self, images: Pixels, feeds: Feeds) -> Logits:
        size = len(images)
        if self._graphs:
            size = next(known for known in SIZES if known >= size)
        if size not in self._buffers:
            graph = next(self._numbers) if self._graphs else None
            shape = (size, *images.shape[1:])
            self._buffers[size] = _Buffers(
                self._session, shape, self._shapes, device=self._device, graph=graph
            )
        return self._buffers[size].run(images, feeds)


class _Buffers:
    """The memory of one batch size, bound to the session."""

    def __init__(
        self,
        session: Any,
        shape: tuple[int, ...],
        others: Mapping[str, tuple[int, ...]],
        *,
        device: str,
        graph: int | None,
    ) -> None:
        runtime = providers.onnx_runtime()
        value = runtime.OrtValue.ortvalue_from_shape_and_type
        session.require({"images": shape, **others})
        self._session = session
        self._locked = _page_locked(shape) if device == "cuda" else None
        self._host = np.zeros(shape, np.uint8) if self._locked is None else _view(self._locked)
        self._images = value(shape, np.uint8, device, 0)
        self._others = {n: value(s, np.float32, device, 0) for n, s in others.items()}
        self._held: dict[str, Any] = {}  # the arrays that were last written to them
        [classes] = others["class_vectors"][:1] if others else _logits_of(session)
        self._logits = value((shape[0], classes), np.float32, device, 0)
        self._binding = session.io_binding()
        for name, place in {"images": self._images, **self._others}.items():
            self._binding.bind_ortvalue_input(name, place)
        self._binding.bind_ortvalue_output("logits", self._logits)
        self._options = runtime.RunOptions()
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self, images: Pixels, feeds: Feeds) -> Logits:
        count = len(images)
        self._host[:count], self._host[count:] = images, 0
        for name, array in feeds.items():
            if self._held.get(name) is not array:
                self._others[name].update_inplace(array)
                self._held[name] = array
        self._images.update_inplace(self._host)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return np.array(self._logits.numpy()[:count])  # a copy: the next run writes over it


def _logits_of(session: Any) -> list[int]:
    """Return how many logits an image has."""
    [shape] = [node.shape for node in session.get_outputs() if node.name == "logits"]
    return list(shape[1:])


def _page_locked(shape: tuple[int, ...]) -> Any:
    """Return page-locked memory of the GPU's provider, or None where it offers none."""
    runtime = providers.onnx_runtime()
    for place in runtime.get_ep_devices():
        if place.ep_name == providers.CUDA:
            memory = place.memory_info(runtime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
            if memory is not None:
                return runtime.OrtValue.ortvalue_from_shape_and_type(
                    shape, np.uint8, memory_info=memory
                )
    return None


def _view(value: Any) -> Pixels:
    """Return the memory of a value that the host can write, as an array; the value must live."""
    shape = tuple(value.shape())
    memory = (ctypes.c_uint8 * int(np.prod(shape))).from_address(value.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(shape)
