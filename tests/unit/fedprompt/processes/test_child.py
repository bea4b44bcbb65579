import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedprompt.processes import child as module
from fedprompt.processes.child import Backoff, Ended, RestartedChild
from tests.waiting import until

Make = Callable[[str], RestartedChild]


def python(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-u", "-c", code]


@pytest.fixture
def made() -> Iterator[Make]:
    children = []

    def make(code: str) -> RestartedChild:
        children.append(RestartedChild("probe", python(code), dict(os.environ)))
        return children[-1]

    yield make
    for child in children:
        child.end()


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    backoff = Backoff(1.0, 60.0)
    pauses = [backoff.next() for _ in range(100)]
    for number, pause in enumerate(pauses):
        whole = min(60.0, 2.0**number)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses[10:])) > 50  # sites that fell together do not come back together
    backoff.reset()
    assert backoff.next() <= 1.0


def test_a_child_that_ends_says_how_and_starts_again(made: Make) -> None:
    child = made("raise SystemExit(7)")
    child.poll()
    first = child.pid
    assert first
    ended = until(child.poll)
    assert isinstance(ended, Ended)
    assert ended.code == 7
    assert child.pid is None
    child.postpone(0.0)
    assert child.poll() is None
    assert child.pid not in (None, first)


def test_a_child_is_not_started_before_its_pause_is_over(
    made: Make,
) -> None:
    child = made("raise SystemExit(1)")
    child.poll()
    child.restart(until(child.poll))
    child.postpone(3600.0)
    assert child.poll() is None
    assert child.pid is None


def test_a_child_that_ran_for_a_while_starts_its_pauses_anew(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    child = made("pass")
    monkeypatch.setattr(child, "postpone", told.append)
    for _ in range(10):
        child.restart(Ended(1, 0.1))
    assert told[-1] > 30
    child.restart(Ended(1, module.SETTLED + 1))
    assert told[-1] <= 1


def test_a_child_that_does_not_end_is_killed(
    made: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.2)
    child = made(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(600)"
    )
    with caplog.at_level(logging.WARNING):
        child.poll()
        pid = child.pid
        until(lambda: "deaf" in caplog.text)
        child.end()
    assert "it was killed" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ctrl_c_is_not_the_childs_to_hear(made: Make) -> None:
    child = made("import time; time.sleep(600)")
    child.poll()
    assert os.getpgid(child.pid) != os.getpgid(0)


def test_what_a_child_says_is_logged(made: Make, caplog: pytest.LogCaptureFixture) -> None:
    child = made("print('not JSON')")
    with caplog.at_level(logging.INFO):
        child.poll()
        until(child.poll)
    assert "not JSON" in caplog.messages


WATCHED = """
import sys, time
from fedprompt.processes import parent_watchdog
parent_watchdog.watch_stdin(grace=5.0)
print("held", flush=True)
time.sleep(600)
"""


def test_F34_a_child_ends_when_its_parent_is_killed() -> None:
    """kill -9 of the parent: the pipe closes, and the child ends without a word from anybody."""
    parent = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {WATCHED!r}], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        os.kill(pid, 0)
        process.send_signal(signal.SIGKILL)
    until(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    """Tell whether a process runs; one that nobody collects counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def test_the_watchdog_cuts_off_what_does_not_hear(made: Make) -> None:
    deaf = WATCHED.replace("grace=5.0", "grace=0.2").replace(
        "import sys, time",
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 1
