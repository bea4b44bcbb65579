"""Run child processes: one life of one, and one that is restarted whenever it ends."""

import logging
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from fedprompt.processes.log_relay import OnRecord, OnText, log_record, start_relay

SETTLED = 60.0  # seconds a child must run until its next end counts as the first
_GRACE = 8.0  # seconds a child may take to end
_LAST_LINES = 2.0  # seconds to log its last lines
_log = logging.getLogger("fedprompt.processes")


class Backoff:
    """Pauses that double up to a limit, each drawn between its half and itself.

    Parameters
    ----------
    first, longest
        Seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait now."""
        pause = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311 (not for secrets)

    def reset(self) -> None:
        """Start with the first pause again."""
        self._failures = 0


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, and the seconds it ran."""

    code: int
    lasted: float


class Child:
    """One running process, in a session of its own, whose output is relayed.

    Parameters
    ----------
    command, env
        Its command line and environment.
    on_record, on_text
        Receive its output, see `fedprompt.processes.log_relay`.
    stdin
        Its standard input; by default a pipe, which `parent_watchdog` in the child watches.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        on_record: OnRecord,
        on_text: OnText,
        stdin: int | IO[str] = subprocess.PIPE,
    ) -> None:
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is the parent's to pass on
        )
        self.pid = self._process.pid
        output = self._process.stdout
        if output is None:
            raise RuntimeError("Popen returned no pipe for the output")
        self._relay = start_relay(output, on_record, on_text)

    def poll(self) -> Ended | None:
        """Return how the process ended; None while it runs."""
        code = self._process.poll()
        return None if code is None else Ended(code, time.monotonic() - self._started)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def end(self, grace: float = _GRACE) -> bool:
        """End the process, by force after ``grace`` seconds; return whether force was needed."""
        self.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return True
        return False

    def close(self, timeout: float = _LAST_LINES) -> None:
        """Close its standard input, and wait for the end of its output."""
        if self._process.stdin:
            self._process.stdin.close()
        self._relay.join(timeout)


class RestartedChild:
    """A child that is restarted whenever it ends, after growing pauses.

    Parameters
    ----------
    name
        Its name in the log.
    command
        Returns the command line; called at each start.
    env
        Its environment.
    """

    def __init__(
        self, name: str, command: Callable[[], Sequence[str]], env: Mapping[str, str]
    ) -> None:
        self.name, self._command, self._env = name, command, env
        self._child: Child | None = None
        self._backoff = Backoff(1.0, 120.0)
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process's id while it runs."""
        return self._child.pid if self._child else None

    def poll(self) -> Ended | None:
        """Start the child if it is due; return how it ended if it has since the last call."""
        if self._child is None:
            if time.monotonic() >= self._due:
                self._start()
            return None
        ended = self._child.poll()
        if ended:
            self._forget()
        return ended

    def postpone(self, seconds: float) -> None:
        """Delay the next start."""
        self._due = time.monotonic() + seconds

    def restart(self, ended: Ended) -> None:
        """Restart after a pause, which is the first again for a child that ran for a while."""
        if ended.lasted > SETTLED:
            self._backoff.reset()
        pause = self._backoff.next()
        _log.warning(
            "%s ended with code %d; it is restarted in %.1f s", self.name, ended.code, pause,
            extra={
                "event": "ended", "child": self.name, "code": ended.code, "pause": round(pause, 1)
            },
        )  # fmt: skip
        self.postpone(pause)

    def terminate(self) -> None:
        """Send SIGTERM, if the child runs."""
        if self._child:
            self._child.terminate()

    def end(self) -> None:
        """Wait until the child has ended, by force after some seconds."""
        if not self._child:
            return
        if self._child.end(_GRACE):
            _log.warning("%s did not end within %g s; it was killed", self.name, _GRACE)
        self._forget()

    def _start(self) -> None:
        self._child = Child(self._command(), self._env, self._log_record, self._log_text)
        pid = self._child.pid
        extra = {"event": "started", "child": self.name, "pid": pid}
        _log.info("%s started, process %d", self.name, pid, extra=extra)

    def _forget(self) -> None:
        if self._child:
            self._child.close()
        self._child = None

    def _log_record(self, record: logging.LogRecord) -> None:
        record.child = self.name
        log_record(record)

    def _log_text(self, text: str) -> None:
        _log.warning("%s", text, extra={"child": self.name})
