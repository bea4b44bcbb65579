"""Open an ONNX Runtime session on the bytes of a checked file."""

from typing import Any

import onnxruntime

from export.metadata import GraphMetadata
from export.runtime import providers
from export.safety import session_options
from fedprompt.errors import GraphError


def read_metadata(session: onnxruntime.InferenceSession) -> GraphMetadata:
    """Return what the file says of itself, checked against its inputs and outputs.

    Raises
    ------
    GraphError
        Metadata is missing or does not fit the graph.
    """
    metadata = GraphMetadata.from_properties(session.get_modelmeta().custom_metadata_map)
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    outputs = {node.name: node.shape for node in session.get_outputs()}
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


def open_session(
    data: bytes,
    *,
    provider: str | None = None,
    flavour: str = "ort",
    allow_cpu: bool = True,
    threads: int = 0,
) -> onnxruntime.InferenceSession:
    """Return a session on the best provider, or on the one asked for.

    Parameters
    ----------
    data
        Of an ONNX file, from `export.safety.read_model`.
    provider
        ``tensorrt``, ``cuda``, ``cpu`` or None for the best.
    flavour
        Of the graph, as its metadata says.
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
    providers.check_installation()
    chosen = providers.choose(provider, onnxruntime.get_available_providers(), flavour)
    if providers.CUDA in chosen and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries as pip installs them
    options = session_options()
    options.intra_op_num_threads = threads
    session = start(data, options, chosen)
    providers.check_fallback(provider, session.get_providers(), allow_cpu=allow_cpu)
    return session


def start(data: bytes, options: Any, chosen: list[str]) -> onnxruntime.InferenceSession:
    """Return a session, or say what ONNX Runtime has against the file.

    Raises
    ------
    GraphError
        The file is damaged, or needs an operator or a file that is not there.
    """
    try:
        return onnxruntime.InferenceSession(data, options, providers=chosen)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime refuses the graph: {reason}") from None
