"""Open an ONNX Runtime session on the bytes of a file that is safe to open."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from export.runtime import providers
from export.runtime.metadata import GraphMetadata
from export.runtime.safety.safe_graph import SafeGraph, harden
from fedprompt.errors import GraphError, ProviderError

log = logging.getLogger("fedprompt.session")


class Session:
    """Run a graph on inputs whose tensors are known to be of a bearable size.

    Parameters
    ----------
    graph
        What is known of the graph.
    session
        An onnxruntime.InferenceSession on it; the package is imported only when it is there.
    """

    def __init__(self, graph: SafeGraph, session: Any) -> None:
        self._graph, self._session = graph, session
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.get_overridable_initializers = session.get_overridable_initializers
        self.get_modelmeta, self.get_providers = session.get_modelmeta, session.get_providers
        self.io_binding = session.io_binding
        self.run_with_iobinding = session.run_with_iobinding
        self.require = graph.require

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        """Return what the graph makes of arrays, by input name.

        Raises
        ------
        GraphError
            It would take too much: see `SafeGraph.require`.
        """
        self.require({name: array.shape for name, array in feeds.items()})
        values: list[Any] = self._session.run(outputs, feeds)
        return values


def read_metadata(session: Session) -> GraphMetadata:
    """Return what the file says of itself, checked against its inputs and outputs.

    Raises
    ------
    GraphError
        Metadata is missing or does not fit the graph.
    """
    try:
        metadata = GraphMetadata.from_properties(session.get_modelmeta().custom_metadata_map)
        inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
        outputs = {node.name: node.shape for node in session.get_outputs()}
    except UnicodeDecodeError as error:
        raise GraphError(f"the file's names or metadata are no text: {error}") from None
    size = metadata.preprocessing.size
    kind, shape = inputs.get("images", ("missing", []))
    classes: int | str = len(metadata.classes)
    if vectors := inputs.pop("class_vectors", None):
        classes = "classes"  # any number: see `export.runtime.open_vocabulary.classifier`
        if vectors[0] != "tensor(float)" or [type(side) for side in vectors[1]] != [str, int]:
            raise GraphError(
                f"the graph's class_vectors are {vectors}; expected float [classes joint]: the "
                "file was changed, export again"
            )
    if len(inputs) != 1 or kind != "tensor(uint8)" or list(shape[1:]) != [size, size, 3]:
        raise GraphError(
            f"the graph's inputs are {inputs}; expected images, uint8 [batch {size} {size} 3]"
        )
    if isinstance(shape[0], int):
        raise GraphError(f"the graph takes batches of {shape[0]} only; expected any size")
    if outputs.get("logits", [])[1:] != [classes]:
        raise GraphError(
            f"the graph's outputs are {outputs}, the metadata names {len(metadata.classes)} "
            "classes; the file was changed: export again"
        )
    return metadata


def open_classifier(
    data: bytes,
    *,
    provider: str | None = None,
    allow_cpu: bool = True,
    threads: int = 0,
    cuda_graphs: bool = False,
) -> tuple[Session, GraphMetadata]:
    """Return a session on the best provider, or on the one asked for, and the file's metadata.

    Parameters
    ----------
    data
        Of an ONNX file, from `export.runtime.safety.safe_graph.read_model`.
    provider
        A key of `export.runtime.providers.NAMES`, or None for the best.
    allow_cpu
        Whether the CPU will do when no provider was asked for.
    threads
        On the CPU; 0 leaves the choice to ONNX Runtime.
    cuda_graphs
        Record CUDA's work once for each batch size; see `export.runtime.io_binding`.

    Raises
    ------
    ProviderError
        ONNX Runtime is missing, doubled or fell back, or cannot record graphs.
    GraphError
        The file is damaged or unsafe.
    """
    if cuda_graphs and provider is None:
        provider = "cuda"  # TensorRT records one batch size only
    available = providers.onnx_runtime().get_available_providers()
    chosen = providers.choose(provider, available)
    try:
        session = start(data, chosen, threads, cuda_graphs=cuda_graphs)
    except GraphError:
        if provider is not None or chosen == [providers.CPU]:
            raise
        session = start(data, [providers.CPU], threads)  # shown by the session, and checked below
    metadata = read_metadata(session)
    if provider is None and metadata.flavour == "portable":
        session = _better(data, session, available, threads)
    running = session.get_providers()
    providers.check_fallback(provider, running, allow_cpu=allow_cpu)
    if provider is None:
        _warn_of_fallback(chosen[0], running[0])
    if cuda_graphs and running[0] != providers.CUDA:
        raise ProviderError(
            f"CUDA graphs were asked for on {running[0]}; they need the provider "
            "cuda: ask for that, or leave graphs off"
        )
    return session, metadata


def _warn_of_fallback(first: str, running: str) -> None:
    """Warn that a GPU is there and did not start; a better provider is no fallback."""
    if running == providers.CPU and first != providers.CPU:
        log.warning(
            "%s did not start; this runs on %s. `fedprompt doctor` says what is missing; ask for "
            "the provider cpu if that is meant", first, running,
        )  # fmt: skip


def start(
    data: bytes, chosen: list[str], threads: int = 0, *, cuda_graphs: bool = False
) -> Session:
    """Return a session, or say what speaks against the file.

    Raises
    ------
    GraphError
        The file is damaged or unsafe, or ONNX Runtime refuses it.
    """
    return Session(SafeGraph(data), start_trusted(data, chosen, threads, cuda_graphs=cuda_graphs))


def start_trusted(
    data: bytes, chosen: list[str], threads: int = 0, *, cuda_graphs: bool = False
) -> Any:
    """Return ONNX Runtime's own session on a graph that was made in this process.

    Raises
    ------
    GraphError
        ONNX Runtime refuses it.
    """
    runtime = providers.onnx_runtime()
    if any(p in chosen for p in providers.NVIDIA) and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA's libraries as pip installs them
    options = runtime.SessionOptions()
    harden(options)
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = providers.DIRECTML not in chosen  # which refuses it
    asked = [(name, providers.options_of(name, cuda_graphs=cuda_graphs)) for name in chosen]
    try:
        return runtime.InferenceSession(data, options, providers=asked, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime refuses the graph: {reason}") from None


def _better(data: bytes, session: Session, available: list[str], threads: int) -> Session:
    """Return a session on the first better provider that does run, else the one there is."""
    running = session.get_providers()
    for name in providers.better(running[0], available):
        try:
            candidate = start(data, [name, *running], threads)
        except GraphError:
            continue  # its libraries come apart from ONNX Runtime's
        if candidate.get_providers()[0] == name:
            return candidate
    return session
