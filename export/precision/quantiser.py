"""Call ONNX Runtime's quantiser, which works on files, on a graph in memory."""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from export.precision.pair_range import keep_pairs_in_range
from fedprompt.errors import GraphError

Quantise = Callable[[onnx.ModelProto, Path, list[str]], None]


def quantised(
    model: onnx.ModelProto, exact: Collection[str], quantise: Quantise
) -> onnx.ModelProto:
    """Return what ``quantise`` makes of the graph, a file, and the names of nodes to leave.

    Raises
    ------
    GraphError
        ONNX Runtime refuses.
    """
    left = [node.name for node in model.graph.node if node.output[0] in exact]
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        try:
            quantise(deepcopy(model), path, left)  # it moves the tensors it is given into a file
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = " ".join(str(error).split())[:300]
            raise GraphError(f"ONNX Runtime could not quantise the graph: {reason}") from None
        found = onnx.load(path)
    keep_pairs_in_range(found, model)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep its advice to optimise the graph first, given by the root logger, from the terminal."""
    root, silence = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silence)  # else the library's first line adds a handler for good
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(silence)
