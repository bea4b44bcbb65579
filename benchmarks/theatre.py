"""Start a deployment's processes, kill some by plan, start again what systemd would, and watch."""

import itertools
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import processes
from benchmarks.deployment import Deployment
from benchmarks.kills import SERVER, Kill, Planned
from benchmarks.processes import Life
from fedprompt.errors import FedpromptError
from fedprompt.run_folder import RunFolder
from server.deployment import single_instance

_LOOK = 0.5  # seconds between two looks at the processes
_SAMPLE = 10.0  # seconds between two samples of their memory
_USUAL = 5.0  # seconds of a round, until some were seen
_GRACE = 30.0  # seconds that processes may take to end
_MOST = 20  # times the server may end by itself before nothing will come of it

log = logging.getLogger("fedprompt.soak")


class Theatre:
    """Hold the processes of a deployment and what happened to them.

    Parameters
    ----------
    deployment
        The folders.
    real
        How many of its sites, the first ones, have processes of their own.
    poll
        Seconds between two looks of another site for a message.
    planned
        Kills, in order.
    seed
        Of the choice among processes of a kind.
    others
        Command lines of other processes that take part, by a name for each.

    Attributes
    ----------
    killed
        What was killed, in order.
    commits
        When each round was seen, seconds of the monotonic clock.
    samples
        Round and bytes, of each process.
    gave_up
        How often the server ended by itself before the run was done.
    """

    def __init__(
        self,
        deployment: Deployment,
        real: int,
        poll: float,
        planned: Sequence[Planned],
        seed: int,
        others: Mapping[str, list[str]] | None = None,
    ) -> None:
        self._others = others or {}
        self._deployment, self._real, self._poll = deployment, real, poll
        self._due, self._draw = list(planned), random.Random(seed)  # noqa: S311 (not for secrets)
        self._scripts = Path(sys.executable).parent
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._run, self._size, self._reached = RunFolder(deployment.server.run), -1, -1
        self._sampled = 0.0
        self.killed: list[Kill] = []
        self.commits: dict[int, float] = {}
        self.samples = defaultdict[Life, list[tuple[int, int]]](list)
        self.gave_up, self.seconds = 0, 0.0

    def __enter__(self) -> "Theatre":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End every process: kindly, then by force."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            process.kill()
            process.communicate()  # closes its standard input, too
        single_instance.end_children(self._deployment.server.lock, _GRACE)

    def play(self) -> None:
        """Run until the server says that its run is done."""
        started = time.monotonic()
        while not self._is_done():
            self._tend()
            self._look()
            self._kill()
            self._sample()
            time.sleep(_LOOK)
        self._look()
        self.seconds = time.monotonic() - started

    def observed(self) -> dict[str, Any]:
        """Return all that was seen, as JSON values."""
        return {
            "seconds": self.seconds,
            "gave_up": self.gave_up,
            "killed": [asdict(kill) for kill in self.killed],
            "commits": self.commits,
            "samples": [[*astuple(life), told] for life, told in self.samples.items()],
        }

    def _commands(self) -> dict[str, list[str]]:
        sites = self._deployment.sites
        rest = [str(site.path) for site in sites[self._real :]]
        commands = {
            site.path.name: [str(self._scripts / "flower-client"), "start", str(site.path)]
            for site in sites[: self._real]
        }
        server = [str(self._scripts / "flower-server"), "start", str(self._deployment.server.path)]
        fleet = [sys.executable, "-m", "benchmarks.fleet", str(self._poll), *rest]
        return {"server": server} | commands | ({"fleet": fleet} if rest else {}) | self._others

    def _is_done(self) -> bool:
        server = self._running.get("server")
        return server is not None and server.poll() == 0

    def _tend(self) -> None:
        """Start what does not run.

        Raises
        ------
        FedpromptError
            The server ended by itself again and again.
        """
        for name, command in self._commands().items():
            process = self._running.get(name)
            code = process.poll() if process else None
            if process and code is None:
                continue
            if process and code is not None:
                process.communicate()
                log.warning("%s ended with code %d; it is started again", name, code)
                self.gave_up += name == "server" and code != -signal.SIGKILL
            if self.gave_up > _MOST:
                raise FedpromptError(f"the server ended {_MOST + 1} times, last with code {code}")
            self._running[name] = self._start(name, command)

    def _start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        folder = self._deployment.server.path.parent / "output"
        folder.mkdir(exist_ok=True)
        with (folder / f"{name}.log").open("ab") as file:
            return subprocess.Popen(
                command,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,  # the fleet ends when this process does
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _look(self) -> None:
        """Note when a round was committed."""
        with suppress(FileNotFoundError):
            size = self._run.record.stat().st_size
            if size == self._size:
                return
            self._size, last = size, self._run.last()
            reached = last.round if last else -1
            if reached != self._reached:
                self._reached = reached
                self.commits[reached] = time.monotonic()
                log.info("round %d", reached)

    def _kill(self) -> None:
        """Carry out the kills that are due; one without a process to hit waits for the next."""
        for planned in [kill for kill in self._due if self._is_due(kill)]:
            if victims := self._of_kind(planned.kind):
                victim = self._draw.choice(victims)
                with suppress(ProcessLookupError):
                    os.kill(victim.pid, signal.SIGKILL)
                    now = time.monotonic()
                    self.killed.append(Kill(planned.kind, victim.pid, self._reached, now))
                    self._due.remove(planned)
                    log.info("killed %s after round %d", planned.kind, self._reached)

    def _is_due(self, planned: Planned) -> bool:
        if self._reached < planned.round:
            return False
        moments = [self.commits[number] for number in sorted(self.commits)]
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        usual = statistics.median([gap for gap in gaps if gap > 0] or [_USUAL])
        passed = time.monotonic() - self.commits.get(planned.round, 0.0)
        return passed >= planned.delay * usual

    def _of_kind(self, kind: str) -> list[Life]:
        return [life for life in self._lives(server=kind in SERVER) if life.kind == kind]

    def _lives(self, *, server: bool) -> list[Life]:
        """Return the processes of the server, or of the sites."""
        if server:
            own = [self._running["server"].pid] if "server" in self._running else []
            return processes.lives([*own, *single_instance.children(self._deployment.server.lock)])
        above = [process.pid for name, process in self._running.items() if name != "server"]
        return processes.lives(
            [*above, *(child for pid in above for child in processes.children(pid))]
        )

    def _sample(self) -> None:
        """Note what every process holds, now and then."""
        now = time.monotonic()
        if now - self._sampled < _SAMPLE or self._reached < 0:
            return
        self._sampled = now
        for life in [*self._lives(server=True), *self._lives(server=False)]:
            if size := processes.memory(life.pid):
                self.samples[life].append((self._reached, size))
