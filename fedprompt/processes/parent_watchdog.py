"""End processes when the one that started them ends, by kill -9 too.

Standard input is the leash: a pipe whose other end the parent holds. The system closes it when the
parent lets go or is gone, whatever becomes of process ids, on every system. A process of ours holds
its own leash (`hold`), or, where Flower starts it and owns its input, watches its parent
(`follow_parent`). For any other command
``python -m fedprompt.processes.parent_watchdog COMMAND`` holds it: the command gets a process group
of its own, and all of the group is ended, for Flower's processes leave theirs behind otherwise.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import IO

PARENT = "FEDPROMPT_FOLLOW_PARENT"  # set for what must not outlive the process that started it
GRACE = 10.0  # seconds that what is told to end may take until it is cut off
_PAUSE = 0.1  # seconds between two looks
_LOOK = 1.0  # the same for a parent


def hold(descriptor: int = 0, grace: float = GRACE) -> threading.Thread:
    """Watch the leash on a thread; when it is let go, end this process as on SIGTERM."""
    watcher = threading.Thread(target=_watch, args=(descriptor, grace), name="leash", daemon=True)
    watcher.start()
    return watcher


def follow_parent(grace: float = GRACE) -> threading.Thread | None:
    """Watch this process's parent on a thread, if `PARENT` is set; end with it as on SIGTERM.

    Flower's own watch raises SIGINT on its thread, which a main thread that waits for a lock does
    not notice: a ServerApp that was sending would wait for its dead SuperLink for ever.
    """
    if not os.environ.get(PARENT):
        return None
    arguments = (os.getppid(), grace)
    watcher = threading.Thread(target=_follow, args=arguments, name="leash", daemon=True)
    watcher.start()
    return watcher


def start(
    command: Sequence[str], env: Mapping[str, str], log: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Start a command on a leash; its output goes to a log."""
    leash = [sys.executable, "-m", "fedprompt.processes.parent_watchdog", *command]
    return subprocess.Popen(
        leash, env=env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Let go of a command and wait until it has ended."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(command: Sequence[str], grace: float = GRACE) -> int:
    """Run a command until it ends, the leash is let go or a signal comes; return its exit code.

    Parameters
    ----------
    command
        What to run, with its arguments.
    grace
        Seconds that the command and what it started may take to end.
    """
    released = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        released.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    hold(grace=2 * grace)
    while child.poll() is None and not released.wait(_PAUSE):
        pass
    _end_group(child, grace)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell reports a signal


def _watch(descriptor: int, grace: float) -> None:
    while _read(descriptor):
        pass
    _end_self(grace)


def _follow(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
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
    """End a command and all that it started: ask, wait, kill."""
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(child.pid, signal.SIGTERM)
        end_of_grace = time.monotonic() + grace
        while time.monotonic() < end_of_grace:
            child.poll()  # a zombie would count as alive
            os.killpg(child.pid, 0)
            time.sleep(_PAUSE)
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
