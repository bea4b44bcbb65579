"""Write files so that a crash, a full disk or a read-only folder never harms the old one (F23)."""

import contextlib
import os
import tempfile
from pathlib import Path

from fedprompt.errors import StorageError


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` whole or not at all: temporary file, fsync, rename, fsync.

    Until the rename nobody else may read the file; ``mode`` 0o600 keeps it so.

    Raises
    ------
    StorageError
        The folder cannot be written or the disk is full; the old file stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise StorageError(_explain(path, error)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException as error:  # also Ctrl-C: no temporary file may stay
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise StorageError(_explain(path, error)) from error
        raise
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} was written, but its folder could not be synced: {error.strerror}; a power "
            "cut may bring back the old file. Write again, or give another --output folder."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where a folder can be opened."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be written: {error.strerror}; nothing was changed. "
        "If the disk is full free some space, or give another --output folder."
    )
