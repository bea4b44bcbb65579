"""Open an ONNX file without letting it reach for anything, hang or allocate (F26). No onnx package.

What an ONNX file can do to its reader, and what stands against it:

* **Endless work, or memory without bound**: `safe_graph` walks the graph before ONNX Runtime sees
  it, and again for each new size of a batch.
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
from pathlib import Path
from typing import Any

from fedprompt.errors import GraphError

MAX_BYTES = (1 << 31) - 1  # protobuf's own limit
_NO_FOLDER = os.devnull  # a device: no path below it can exist


def read_model(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of an ONNX file, which `safe_graph` checks before they are run.

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
