"""End processes when the process that started them ends, by ``kill -9`` too.

A parent holds the write end of a child's standard input. The system closes it when the parent ends,
on every system and whatever becomes of process ids. A process of ours watches its own standard
input (`watch_stdin`) or, where Flower starts it and owns its input, its parent (`watch_parent`).
``python -m fedprompt.processes.parent_watchdog COMMAND`` watches for any other command: it runs the
command in a process group of its own and ends the whole group, since Flower's processes leave
theirs behind.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import IO

PARENT = "FEDPROMPT_FOLLOW_PARENT"  # set for processes that must not outlive their parent
GRACE = 10.0  # seconds a process may take to end before it is killed
_POLL = 0.1  # seconds between two looks at a command
_POLL_PARENT = 1.0  # the same for a parent


def watch_stdin(descriptor: int = 0, grace: float = GRACE) -> threading.Thread:
    """Watch standard input on a thread; when it is closed, end this process as on SIGTERM."""
    watcher = threading.Thread(
        target=_watch_stdin, args=(descriptor, grace), name="parent-watchdog", daemon=True
    )
    watcher.start()
    return watcher


def watch_parent(grace: float = GRACE) -> threading.Thread | None:
    """Watch the parent process on a thread, if `PARENT` is set; end with it as on SIGTERM.

    Flower's own monitor raises SIGINT on its thread, which a main thread that waits for a lock does
    not notice: a ServerApp that was sending would wait for its dead SuperLink forever.
    """
    if not os.environ.get(PARENT):
        return None
    arguments = (os.getppid(), grace)
    watcher = threading.Thread(
        target=_watch_parent, args=arguments, name="parent-watchdog", daemon=True
    )
    watcher.start()
    return watcher


def start(
    command: Sequence[str], env: Mapping[str, str], log: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Start a command that ends with this process; its output goes to a log."""
    watched = [sys.executable, "-m", "fedprompt.processes.parent_watchdog", *command]
    return subprocess.Popen(
        watched, env=env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a command of `start` and wait until it has ended."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(command: Sequence[str], grace: float = GRACE) -> int:
    """Run a command until it ends, standard input closes or a signal comes; return its exit code.

    Parameters
    ----------
    command
        The command line.
    grace
        Seconds that the command and its descendants may take to end.
    """
    released = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        released.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    watch_stdin(grace=2 * grace)
    while child.poll() is None and not released.wait(_POLL):
        pass
    _end_group(child, grace)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell reports a signal


def _start(watch: Callable[[int, float], None], watched: int, grace: float) -> threading.Thread:
    thread = threading.Thread(
        target=watch, args=(watched, grace), name="parent-watchdog", daemon=True
    )
    thread.start()
    return thread


def _watch_stdin(descriptor: int, grace: float) -> None:
    while _read(descriptor):
        pass
    _end_self(grace)


def _watch_parent(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_PARENT)
    _end_self(grace)


def _end_self(grace: float) -> None:
    threading.Timer(grace, os._exit, (1,)).start()  # a daemon, as this thread is
    os.kill(os.getpid(), signal.SIGTERM)  # to the process: it wakes the main thread


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1024)  # not sys.stdin: its lock aborts an interpreter that ends
    except OSError:
        return b""


def _end_group(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """End a command and its descendants: ask, wait, kill."""
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(child.pid, signal.SIGTERM)
        end_of_grace = time.monotonic() + grace
        while time.monotonic() < end_of_grace:
            child.poll()  # a zombie would count as alive
            os.killpg(child.pid, 0)
            time.sleep(_POLL)
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
