"""Open an ONNX file without letting it reach for anything, hang or allocate (F26). No onnx package.

What an ONNX file can do to its reader, and what stands against it:

* **Endless work, or memory without bound**: the graph is walked first, and again for each new size
  of a batch, with shapes instead of tensors. A small and valid file can ask for 2^62 steps of Loop,
  12 GB of zeros, a table of n x n made of two columns; ONNX Runtime computes what depends on
  constants alone already while it opens the graph. Every operator is on a list (`operators`), every
  tensor has a size, and what a graph takes at once and in all stays below what the largest image
  towers take.
* **External data** (a tensor stored in another file, by traversal, absolute path, symlink or hard
  link): the structure may hold none (`onnx_file`). The file is read once and ONNX Runtime
  gets the bytes, never a path. Bytes alone are not enough: ONNX Runtime 1.32 then looks in the
  *working directory*, and reads a plain file or a hard link there. So `harden` pins the folder for
  external data to a device, below which no file can exist.
* **A compiled engine** (operator ``EPContext``, which TensorRT would load from a file and run), **a
  custom operator, a function, a graph inside an operator**: none is on the list of
  `export.runtime.safety.operators`.
* **A device or pipe as the file, or one too large**: refused before reading. A symlink to the model
  itself is followed: it is the caller's own path, and what is checked are the bytes that are run.
"""

import os
import stat
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from export.runtime.safety import operators
from export.runtime.safety.onnx_file import (
    INT64,
    ITEM_BYTES,
    Declared,
    Node,
    OnnxFile,
    Shape,
    Tensor,
    read_onnx,
)
from export.runtime.safety.operators import MOST_KNOWN, OPSETS, Value
from fedprompt.errors import GraphError

MOST_NODES = 1 << 14  # open_clip's longest tower has some two thousand
MOST_ALIVE = 1 << 27  # elements at once, an image; PE-Core-bigG at 448 pixels has half as many
MOST_WORK = 1 << 43  # multiplications, an image; twice those of that tower
_MOST_REMEMBERED = 1 << 10
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit
_NO_FOLDER = os.devnull  # a device: no path below it can exist

Shapes = Mapping[str, Shape]


def read_model(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of an ONNX file, which `SafeGraph` checks before they are run.

    Raises
    ------
    GraphError
        The file is missing, no regular file, empty or too large.
    """
    try:  # without O_NONBLOCK a pipe would wait for its writer
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise GraphError(
            f"{path} could not be opened: {error.strerror}; give what `fedprompt export` wrote"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= max_bytes:
            raise GraphError(
                f"{path} is empty, no regular file or larger than {max_bytes:,} bytes "
                f"(found {status.st_size:,}); give an ONNX file"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise GraphError(f"{path} could not be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return data


def harden(options: Any) -> None:
    """Set session options so that external data is never found and errors are only raised."""
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )


class SafeGraph:
    """The structure of a graph whose operators are on the list and whose sizes are bounded.

    Parameters
    ----------
    data
        Of an ONNX file.

    Raises
    ------
    GraphError
        The bytes are damaged, an operator is not on the list, or the graph takes more than any
        classifier, before the first image or for one.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._file = read_onnx(data)
            _check_parts(self._file)
            self._dead_after = _dead_after(self._file)
            self._check_declared()
        except GraphError as error:
            raise GraphError(
                f"the graph is not opened because {error}; "
                "give a file that `fedprompt export` wrote"
            ) from None
        self._fitting: set[tuple[tuple[str, Shape], ...]] = set()

    @property
    def nodes(self) -> int:
        """Return the number of operators."""
        return len(self._file.nodes)

    def require(self, shapes: Shapes) -> None:
        """Refuse inputs of some shapes if the tensors made of them would be too large.

        Raises
        ------
        GraphError
            They would, or some have no size that can be known.
        """
        key = tuple(sorted(shapes.items()))
        if key not in self._fitting:
            try:
                self._measure(shapes, images=self._images(shapes))
            except GraphError as error:
                raise GraphError(
                    f"the graph does not run on {dict(shapes)} because {error}"
                ) from None
            if len(self._fitting) == _MOST_REMEMBERED:
                self._fitting.clear()
            self._fitting.add(key)

    def _check_declared(self) -> None:
        """Walk the graph for one image, and compare with what the file says of its tensors."""
        inputs = self._file.inputs.items()
        made = self._measure({n: tuple(side or 1 for side in e.shape) for n, e in inputs}, images=1)
        for name, entry in (*self._file.between.items(), *self._file.outputs.items()):
            if name in made and not _agrees(entry, made[name].shape):
                raise GraphError(
                    f"it declares {name[:100]!r} as {list(entry.shape)}, which is "
                    f"{list(made[name].shape)}"
                )

    def _images(self, shapes: Shapes) -> int:
        """Return the length of the first input's first side: images, or names of classes."""
        first = shapes.get(next(iter(self._file.inputs)), ())
        return max(1, *first[:1])

    def _measure(self, shapes: Shapes, *, images: int) -> dict[str, Value]:
        """Walk the graph and return every tensor's size, within the bounds for some images."""
        given = {n: Value(tuple(shapes[n])) for n in self._file.inputs if n in shapes}
        known = {n: _value(t) for n, t in self._file.constants.items()} | given
        constant = self._file.constants.keys() - self._file.inputs.keys()
        alive, work, fixed = sum(value.size for value in given.values()), 0, set(constant)
        for place, node in enumerate(self._file.nodes):
            made = operators.apply(node, [_input(name, known) for name in node.inputs])
            for name, value in zip(node.outputs, made.values, strict=False):
                if name in known:
                    raise GraphError(f"it makes {name[:100]!r} twice")
                if name:
                    known[name] = value
                alive += value.size
            if all(name in fixed or not name for name in node.inputs):
                fixed.update(node.outputs)  # computed at the start, and kept
            work += made.work
            _require_bounded(node, alive + made.scratch, work, images)
            dead = (name for name in self._dead_after[place] if name not in fixed)
            alive -= sum(known[name].size for name in dead)
        return known


def _check_parts(file: OnnxFile) -> None:
    """Refuse what no exported file has, before anything is walked."""
    for domain, version in file.opsets.items():
        if OPSETS.get(domain) != version:
            raise GraphError(
                f"it is written in version {version} of {domain[:100] or 'the standard operators'};"
                f" expected {' and '.join(f'{d} {v}'.strip() for d, v in OPSETS.items())}"
            )
    if len(file.nodes) > MOST_NODES:
        raise GraphError(f"it has {len(file.nodes):,} operators; expected at most {MOST_NODES:,}")
    if not file.inputs:
        raise GraphError("it takes no images")
    for name, entry in file.inputs.items():
        if entry.kind not in ITEM_BYTES or 0 in entry.shape:
            raise GraphError(f"its input {name[:100]!r} is of the type {entry.kind}")
        if name in file.constants and file.constants[name].shape != entry.shape:
            raise GraphError(f"its input {name[:100]!r} is a constant of another shape")


def _agrees(entry: Declared, shape: Shape) -> bool:
    """Return whether a tensor is as large as declared; ONNX Runtime trusts what it cannot infer."""
    sides = zip(entry.shape, shape, strict=False)
    return len(entry.shape) == len(shape) and all(side in (None, found) for side, found in sides)


def _dead_after(file: OnnxFile) -> list[list[str]]:
    """Return for each node the tensors that are read by no later one."""
    last = {name: place for place, node in enumerate(file.nodes) for name in node.outputs}
    last |= {name: place for place, node in enumerate(file.nodes) for name in node.inputs}
    dead: list[list[str]] = [[] for _ in file.nodes]
    made = {name for node in file.nodes for name in node.outputs if name} - file.outputs.keys()
    for name in made:
        dead[last[name]].append(name)
    return dead


def _value(tensor: Tensor) -> Value:
    known = tensor.kind == INT64 and prod(tensor.shape) <= MOST_KNOWN
    return Value(tensor.shape, tuple(tensor.integers()) if known else None)


def _input(name: str, known: Mapping[str, Value]) -> Value | None:
    if not name:
        return None
    if name not in known:
        raise GraphError(f"it reads {name[:100]!r}, which nothing made before")
    return known[name]


def _require_bounded(node: Node, alive: int, work: int, images: int) -> None:
    if alive > MOST_ALIVE * images:
        raise GraphError(
            f"its operator {node}, which makes {node.outputs[0][:100]!r}, would need {alive:,} "
            f"numbers at once for {images} images; a classifier takes at most {MOST_ALIVE:,} each"
        )
    if work > MOST_WORK * images:
        raise GraphError(
            f"it would need more than {MOST_WORK:,} multiplications an image; no classifier does"
        )
