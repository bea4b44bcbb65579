"""Write files so that a crash, a full disk or a read-only folder never harms the old one (F23)."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Literal

from fedprompt.errors import StorageError

_LONGEST_NAME = 255  # bytes, on every file system in common use


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
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:32]}.", dir=path.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
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


def check_writable(path: Path, kind: Literal["file", "folder"]) -> None:
    """Check before the work that what it ends in can be written: a file, or files of a folder.

    Raises
    ------
    StorageError
        What is there is of the other kind, a file stands where a folder should be, a folder cannot
        be written to, or a name is longer than the file system takes.
    """
    there = path
    try:
        while not there.exists() and there != there.parent:
            _check_name(there)
            there = there.parent
        if there != path and not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file, not a folder")
        with tempfile.TemporaryFile(dir=there if there.is_dir() else there.parent):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(
            f"{str(path)!r:.100} cannot be written: {told}; nothing was done yet. Give another path"
        ) from None
    if path.exists() and (found := "folder" if path.is_dir() else "file") != kind:
        raise StorageError(f"{path} is a {found}, expected a {kind}; give another path")


def _check_name(path: Path) -> None:
    if "\0" in path.name:
        raise ValueError("a name holds a NUL character")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where a folder can be opened."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: OSError | ValueError) -> str:
    told = error.strerror if isinstance(error, OSError) else str(error)
    return (
        f"{str(path)[:200]} could not be written: {told}; nothing was changed. "
        "If the disk is full free some space, or give another --output folder."
    )
