"""A watched command: it ends when its parent does, however that happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedprompt.processes import parent_watchdog

ROOT = Path(__file__).parents[4]
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def started(command, path):
    with path.open("wb") as log:
        process = parent_watchdog.start(command, os.environ | {"PYTHONPATH": str(ROOT)}, log)
    _wait(lambda: path.read_bytes().startswith(b"up"))
    return process


def _wait(happened):
    end = time.monotonic() + 600  # until it counts as hung
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_letting_go_ends_the_command(tmp_path):
    process = started(SLEEP, tmp_path / "log")
    parent_watchdog.end(process)
    assert process.returncode == 128 + signal.SIGTERM


def test_the_commands_own_end_is_told(tmp_path):
    code = "print('up', flush=True); raise SystemExit(7)"
    process = started([sys.executable, "-c", code], tmp_path / "log")
    assert process.wait(60) == 7
    parent_watchdog.end(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command(tmp_path, number):
    process = started(SLEEP, tmp_path / "log")
    process.send_signal(number)
    assert process.wait(60) == 128 + signal.SIGTERM
    parent_watchdog.end(process)


def test_a_stubborn_command_is_killed(tmp_path, monkeypatch):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); time.sleep(600)"
    )
    wrapper = (
        "import sys; from fedprompt.processes.parent_watchdog import run; "
        "sys.exit(run(sys.argv[1:], grace=0.2))"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", wrapper, sys.executable, "-c", code],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=log,
        )  # fmt: skip
    _wait(lambda: (tmp_path / "log").read_bytes().startswith(b"up"))
    parent_watchdog.end(process)
    assert process.returncode == 128 + signal.SIGKILL


def test_what_the_command_started_ends_with_it(tmp_path):
    """A grandchild that does not care for its parent's end, as Flower's simulation."""
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c',"
        "'import time; time.sleep(600)']); print('up', child.pid, flush=True)"
    )
    process = started([sys.executable, "-c", code], tmp_path / "log")
    assert process.wait(60) == 0
    _wait(lambda: (tmp_path / "log").read_text().endswith("\n"))
    grandchild = Path("/proc", (tmp_path / "log").read_text().split()[1], "stat")
    assert not grandchild.exists() or grandchild.read_text().split()[2] == "Z"
    parent_watchdog.end(process)


WAITS = (  # as a ServerApp that sends: the main thread waits for a lock, another one for ever
    "import threading; from fedprompt.processes import parent_watchdog;"
    "parent_watchdog.watch_parent(grace=0.5);"
    "threading.Thread(target=threading.Event().wait).start();"
    "print(__import__('os').getpid(), flush=True); threading.Event().wait()"
)
STARTS = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


def family(**environment):
    """Start a process that starts one that waits; return the first, and the other's id."""
    own = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", STARTS, WAITS]
    parent = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)
    return parent, int(parent.stdout.readline())


def test_a_child_ends_with_its_parent_whatever_its_threads_wait_for():
    parent, child = family(**{parent_watchdog.PARENT: "1"})
    with parent:
        parent.kill()
    _wait(lambda: not _line(child))


def test_a_child_that_was_not_told_to_stays():
    parent, child = family()
    with parent:
        parent.kill()
    try:
        time.sleep(2.5)  # two looks and the grace
        assert b"watch_parent" in _line(child)
    finally:
        os.kill(child, signal.SIGKILL)


def _line(process):
    """Return a process's command line; nothing of one that is gone or a zombie."""
    path = Path(f"/proc/{process}/cmdline")
    return path.read_bytes() if path.exists() else b""
