"""Open an ONNX Runtime session on the bytes of a checked file."""

from contextlib import suppress
from typing import Any

from export.metadata import GraphMetadata
from export.runtime import providers
from export.safety import harden
from fedprompt.errors import GraphError

Session = Any  # onnxruntime.InferenceSession, imported only when it is there


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
    if len(inputs) != 1 or kind != "tensor(uint8)" or list(shape[1:]) != [size, size, 3]:
        raise GraphError(
            f"the graph's inputs are {inputs}; expected images, uint8 [batch {size} {size} 3]"
        )
    if isinstance(shape[0], int):
        raise GraphError(f"the graph takes batches of {shape[0]} only; expected any size")
    if outputs.get("logits", [])[1:] != [len(metadata.classes)]:
        raise GraphError(
            f"the graph's outputs are {outputs}, the metadata names {len(metadata.classes)} "
            "classes; the file was changed: export again"
        )
    return metadata


def open_classifier(
    data: bytes, *, provider: str | None = None, allow_cpu: bool = True, threads: int = 0
) -> tuple[Session, GraphMetadata]:
    """Return a session on the best provider, or on the one asked for, and the file's metadata.

    Parameters
    ----------
    data
        Of an ONNX file, from `export.safety.read_model`.
    provider
        ``tensorrt``, ``cuda``, ``cpu`` or None for the best.
    allow_cpu
        Whether the CPU will do when no provider was asked for.
    threads
        On the CPU; 0 leaves the choice to ONNX Runtime.

    Raises
    ------
    ProviderError
        ONNX Runtime is missing, doubled or fell back.
    GraphError
        The file is damaged or unsafe.
    """
    available = providers.onnx_runtime().get_available_providers()
    chosen = providers.choose(provider, available)
    try:
        session = start(data, chosen, threads)
    except GraphError:
        if provider is not None or chosen == [providers.CPU]:
            raise
        session = start(data, [providers.CPU], threads)  # shown by the session, and checked below
    metadata = read_metadata(session)
    if provider is None and providers.TENSORRT in available and metadata.flavour == "portable":
        with suppress(GraphError):  # its libraries come apart from ONNX Runtime's
            session = start(data, [providers.TENSORRT, *chosen], threads)
    providers.check_fallback(provider, session.get_providers(), allow_cpu=allow_cpu)
    return session, metadata


def start(data: bytes, chosen: list[str], threads: int = 0) -> Session:
    """Return a session, or say what ONNX Runtime has against the file.

    Raises
    ------
    GraphError
        The file is damaged, or needs an operator or a file that is not there.
    """
    runtime = providers.onnx_runtime()
    if providers.CUDA in chosen and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA's libraries as pip installs them
    options = runtime.SessionOptions()
    harden(options)
    options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(data, options, providers=chosen, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime refuses the graph: {reason}") from None
