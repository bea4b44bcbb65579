"""Keep one child process running: start it, watch it, start it again after a growing pause."""

import logging
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from fedprompt.processes.log_relay import relay

SETTLED = 60.0  # seconds a child must run until its next end counts as the first
_GRACE = 8.0  # seconds a child may take to end
_log = logging.getLogger("client.deployment")


class Backoff:
    """Give pauses that double up to a limit, each drawn between its half and itself.

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
        """Begin anew: the last try went well."""
        self._failures = 0


@dataclass(frozen=True)
class Ended:
    """Hold how a child ended: its exit code, and the seconds it ran."""

    code: int
    lasted: float


class Child:
    """Hold one child process, its leash and its pauses.

    Parameters
    ----------
    name
        What the log calls it.
    command
        Returns the command line; asked at each start.
    env
        Its environment.
    """

    def __init__(
        self, name: str, command: Callable[[], Sequence[str]], env: Mapping[str, str]
    ) -> None:
        self.name, self._command, self._env = name, command, env
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._backoff = Backoff(1.0, 120.0)
        self._due = self._started = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process's id while it runs."""
        return self._process.pid if self._process else None

    def tend(self) -> Ended | None:
        """Start the child if it is due; say how it ended if it has since."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._due:
                self._start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._forget()
        return Ended(code, now - self._started)

    def wait(self, seconds: float) -> None:
        """Do not start before so many seconds."""
        self._due = time.monotonic() + seconds

    def again(self, ended: Ended) -> None:
        """Start again after a pause; one that ran for a while starts its pauses anew."""
        if ended.lasted > SETTLED:
            self._backoff.reset()
        pause = self._backoff.next()
        told = {"event": "ended", "child": self.name, "code": ended.code, "pause": round(pause, 1)}
        text = "%s ended with code %d; it starts again in %.1f s"
        _log.warning(text, self.name, ended.code, pause, extra=told)
        self.wait(pause)

    def ask_to_end(self) -> None:
        """Send SIGTERM, if the child runs."""
        if self._process:
            self._process.terminate()

    def end(self) -> None:
        """Wait until the child has ended, by force after some seconds."""
        if not self._process:
            return
        self.ask_to_end()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            _log.warning("%s does not end; it is killed", self.name)
            self._process.kill()
            self._process.wait()
        self._forget()

    def _start(self) -> None:
        self._started = time.monotonic()
        process = subprocess.Popen(
            self._command(),
            env=self._env,
            stdin=subprocess.PIPE,  # the leash
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the parent's to pass on
        )
        self._process = process
        told = {"event": "started", "child": self.name, "pid": process.pid}
        _log.info("%s started, process %d", self.name, process.pid, extra=told)
        self._reader = threading.Thread(
            target=_follow, args=(process.stdout, self.name), daemon=True
        )
        self._reader.start()

    def _forget(self) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()
        if self._reader:
            self._reader.join(2.0)  # its last words
        self._process = None


def _follow(stream: IO[bytes], name: str) -> None:
    with stream:
        for line in stream:
            relay(line, name)
