"""Run one server in a folder, its child processes included.

Each process of a server has the lock file as its standard input, and the lock belongs to the open
file: it is held exactly as long as one of them runs, whatever killed the others.
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

_TIMEOUT = 30.0  # seconds that the children of a killed server may take to end
_POLL = 0.2  # seconds between two looks


@contextmanager
def exclusive(path: Path) -> Iterator[IO[str]]:
    """Hold the lock; yield the open file, which children inherit as standard input.

    Raises
    ------
    FedpromptError
        A server runs in this folder, or processes of an earlier one do not end.
    """
    with path.open("a+") as file:
        started = time.monotonic()
        while not try_lock(file.fileno()):
            _refuse_if_running(path)
            waited = time.monotonic() - started
            if waited > _TIMEOUT:
                raise FedpromptError(
                    f"processes of an earlier server still hold {path}; end them and try again "
                    f"(fuser {path} lists them)"
                )
            if waited > _TIMEOUT / 2:
                end_children(path, 0)
            time.sleep(_POLL)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file


def children(path: Path) -> list[int]:
    """Return the processes whose standard input is the lock file, where /proc shows it."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/fd/0"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if entry.samefile(path):
                pids.append(int(entry.parts[2]))
    return pids


def end_children(path: Path, seconds: float) -> None:
    """Wait until the children of a server have ended by themselves, then kill the rest."""
    deadline = time.monotonic() + seconds
    while children(path) and time.monotonic() < deadline:
        time.sleep(_POLL)
    for pid in children(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _refuse_if_running(path: Path) -> None:
    text = path.read_text().strip()
    if text.isdigit() and _is_alive(int(text)):
        raise FedpromptError(
            f"a server runs in {path.parent} already (process {text}); "
            "see `flower-server status`, or stop it first"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
