"""Let one server run in a folder, its children included.

The lock belongs to the open file. Each process of a server has that file as its standard input, so
the lock is held exactly as long as one of them lives, whatever killed the others.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fedprompt.errors import FedpromptError
from fedprompt.files.file_lock import try_lock

_PATIENCE = 30.0  # seconds that the children of a killed server may take to end
_PAUSE = 0.2


@contextmanager
def held(path: Path) -> Iterator[IO[str]]:
    """Hold the lock; yield the open file, which children get as standard input.

    Raises
    ------
    FedpromptError
        A server runs in this folder, or what is left of one does not end.
    """
    with path.open("a+") as file:
        started = time.monotonic()
        while not try_lock(file.fileno()):
            _refuse_if_running(path)
            waited = time.monotonic() - started
            if waited > _PATIENCE:
                raise FedpromptError(
                    f"processes of an earlier server still hold {path}; end them and try again "
                    f"(fuser {path} lists them)"
                )
            if waited > _PATIENCE / 2:
                end_children(path, 0)
            time.sleep(_PAUSE)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file


def children(path: Path) -> list[int]:
    """Return the processes that have the lock file as their standard input, where /proc tells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/0"):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if entry.samefile(path):
                found.append(int(entry.parts[2]))
    return found


def end_children(path: Path, seconds: float) -> None:
    """Wait until the children of a server have ended by themselves, then kill what is left."""
    last = time.monotonic() + seconds
    while children(path) and time.monotonic() < last:
        time.sleep(_PAUSE)
    for process in children(path):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _refuse_if_running(path: Path) -> None:
    text = path.read_text().strip()
    if text.isdigit() and _lives(int(text)):
        raise FedpromptError(
            f"a server runs in {path.parent} already (process {text}); "
            "see `flower-server status`, or stop it first"
        )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
