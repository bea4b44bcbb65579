"""What a graph answers, asked in batches of several sizes."""

from collections.abc import Iterator

import numpy as np
import onnx

from export.fold.types import Answers, Pictures
from export.runtime.providers import CPU, CUDA, onnx_runtime
from export.runtime.session import Session, start
from fedprompt.errors import GraphError, ProviderError

_BATCHES = (1, 2, 5)  # an exporter that froze the batch fails at one of them


def open_graph(model: onnx.ModelProto, precision: str = "fp32") -> Session:
    """Return a session that measures a graph: on the CPU, or for bf16 on CUDA.

    Raises
    ------
    ProviderError
        Nothing here has kernels for bf16.
    GraphError
        ONNX Runtime refuses the graph.
    """
    data = model.SerializeToString()
    if precision != "bf16":
        return start(data, [CPU])
    if CUDA in onnx_runtime().get_available_providers():
        session = start(data, [CUDA, CPU])
        if CUDA in session.get_providers():
            return session
    raise ProviderError(
        "bf16 runs on CUDA only, which is not here, so the graph cannot be compared with torch; "
        "export on a machine with fedprompt[gpu] and its driver, or choose fp16"
    )


def answers(session: Session, images: Pictures) -> Answers:
    """Return logits of resized images.

    Raises
    ------
    GraphError
        The graph fails at some batch size.
    """
    try:
        parts = [session.run(["logits"], {"images": part})[0] for part in _mixed_batches(images)]
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise GraphError(f"the graph fails on some batch size: {error}") from None
    return np.concatenate(parts)


def _mixed_batches(images: Pictures) -> Iterator[Pictures]:
    begin = 0
    sizes = iter(_BATCHES)
    while begin < len(images):
        size = next(sizes, 16)
        yield images[begin : begin + size]
        begin += size
