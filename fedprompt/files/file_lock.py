"""Lock a file or folder, so that one process at a time works on it.

The lock (`flock`) belongs to the open file: the system releases it when the last process that
holds the file open ends, whatever ended it. The lock files of earlier versions, made by filelock,
are locked alike.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL = 0.05  # seconds between two attempts


def try_lock(descriptor: int) -> bool:
    """Lock an open file unless another process has; return whether it is locked now.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def lock(path: Path, *, timeout: float = float("inf")) -> Iterator[None]:
    """Hold the lock of a folder, or of a file that is created with mode 0600.

    Parameters
    ----------
    path
        What is locked. A file stays when it is released.
    timeout
        Seconds to wait for another process; 0 tries once.

    Raises
    ------
    TimeoutError
        Another process holds the lock.
    OSError
        The path cannot be opened, or its file system has no locks.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is locked by another process")
            time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file; one that does not exist is free."""
    if not path.exists():
        return False
    try:
        with lock(path, timeout=0):
            return False
    except TimeoutError:
        return True
