"""A real deployment on loopback for tests: a server's folder, its sites, and every process ended.

Each process is started with a mark in its environment, which its descendants inherit, so that none
of them is missed: neither when a test asks what still runs, nor when everything is ended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from client.deployment import site_folder
from client.deployment.join import encode
from client.deployment.site_folder import SiteFolder
from fedprompt.protocol import address
from fedprompt.protocol import invitation as invitations
from server.deployment import create_folder, enrolment
from server.deployment.folder import DeploymentFolder
from tests import round_lines

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
CLASSES = ("red", "green", "blue")
PATIENCE = 600.0  # seconds until something counts as hung, on a busy machine
_MARK = "FEDPROMPT_TEST_MARK"
_END = 30.0  # seconds a process that was told to end may take
_TAIL = 6000  # characters of a log that a failed test shows

# Few rounds of little work; deadlines that a slow machine keeps and that do not hold up a test.
SETTINGS = {
    "server.rounds": 3,
    "server.deadline": 120.0,
    "server.join_deadline": 200.0,
    "server.evaluate_every": 0,
    "server.min_sites": 2,
    "fit.learning_rate": 0.1,
    "fit.batch": 8,
    "prompt.rank": 1,
}


def pictures(folder: Path, seed: int, each: int = 8) -> Path:
    """Draw a site's own pictures, a folder for each class."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for count in range(each):
            pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(folder / name / f"{count}.png")
    return folder


def wait(happened: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Running:
    """A process, and whatever it starts.

    Parameters
    ----------
    command
        Its command line.
    log
        Where its output goes.
    netns
        The network namespace to run in; "" = the one of this process.
    environment
        Added to this process's.
    """

    def __init__(
        self, command: Sequence[object], log: Path, netns: str = "", **environment: str
    ) -> None:
        self.mark, self.log = uuid.uuid4().hex, log
        self._begins = log.stat().st_size if log.exists() else 0  # after an earlier process's words
        own = {_MARK: self.mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
        inside = ["ip", "netns", "exec", netns] if netns else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*inside, *map(str, command)], env=os.environ | own,
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def family(self) -> dict[int, str]:
        """Return the command lines of the process and its descendants, by process id."""
        needle, found = f"{_MARK}={self.mark}".encode(), {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # gone meanwhile
                if needle in path.read_bytes():  # empty for a zombie
                    line = (path.parent / "cmdline").read_bytes()
                    found[int(path.parent.name)] = line.replace(b"\0", b" ").decode()
        return found

    def pid(self, part: str) -> int:
        """Return the id of the process whose command line holds ``part``; 0 if there is none."""
        return min((pid for pid, line in self.family().items() if part in line), default=0)

    def send(self, number: int, part: str = "") -> None:
        """Send a signal to every process of the family whose command line holds ``part``."""
        for pid, line in self.family().items():
            with suppress(ProcessLookupError):
                if part in line:
                    os.kill(pid, number)

    def result(self, seconds: float = PATIENCE) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(seconds)

    def told(self) -> str:
        """Return the end of what it wrote."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")[-_TAIL:]

    def end(self) -> None:
        """End it kindly, then what is left of it by force."""
        self.send(signal.SIGCONT)
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END)
        for _ in range(100):  # what is killed may just have started something
            if not self.family():
                break
            self.send(signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait(_END)


class Deployment:
    """A server's folder, its sites' folders, and the processes that were started for them.

    Parameters
    ----------
    root
        A new folder for all of it.
    host
        What the server listens on and the sites dial; an IPv6 address without brackets.
    """

    def __init__(self, root: Path, host: str = "127.0.0.1") -> None:
        self.root = root
        self.cache = root / "cache"
        self.folder = DeploymentFolder(root / "server")
        port, *self._ports = free_ports(3)
        self.address = address.join(host, port)
        self.running: list[Running] = []
        self.server: Running | None = None  # the last that was started
        self.sites: list[Site] = []
        self._environment: dict[str, str] = {"FEDPROMPT_CACHE": str(self.cache)}

    def make(self, settings: Mapping[str, Any], days: int = 397) -> None:
        """Make the server's folder without its command; settings stand beside `SETTINGS`."""
        run = SETTINGS | dict(settings)
        create_folder.create(self.folder, self.address, ",".join(CLASSES), run, days)
        self.set_ports()

    def set_ports(self) -> None:
        """Write ports into server.toml that are free on this machine."""
        control, metrics = self._ports
        lines = self.folder.toml.read_text().splitlines()
        for name, port in (("control_port", control), ("metrics_port", metrics)):
            [place] = [i for i, line in enumerate(lines) if line.startswith(name)]
            lines[place] = f"{name} = {port}"
        self.folder.toml.write_text("\n".join(lines) + "\n")

    def run(
        self, command: Sequence[object], name: str, netns: str = "", **environment: str
    ) -> Running:
        """Start a process that is ended with the deployment."""
        made = Running(
            command, self.root / f"{name}.log", netns, **(self._environment | environment)
        )
        self.running.append(made)
        return made

    def serve(self, netns: str = "") -> Running:
        """Start ``flower-server start``."""
        command = [SCRIPTS / "flower-server", "start", self.folder.path, "--json"]
        self.server = self.run(command, "server", netns)
        return self.server

    def site(self, name: str, seed: int) -> "Site":
        """Enrol a site with pictures of its own, and join without starting."""
        invitation = self.root / f"{name}{enrolment.SUFFIX}"
        enrolment.enrol(self.folder, name, 0, invitation)
        found = invitations.read_file(invitation)
        folder = SiteFolder(self.root / name)
        site_folder.create(folder, found, str(pictures(self.root / f"pictures-{name}", seed)))
        before = os.environ.get("FEDPROMPT_CACHE")
        os.environ["FEDPROMPT_CACHE"] = str(self.cache)
        try:
            encode(folder)
        finally:
            os.environ.pop("FEDPROMPT_CACHE")
            os.environ |= {"FEDPROMPT_CACHE": before} if before else {}
        self.sites.append(Site(self, folder, found.number, invitation))
        return self.sites[-1]

    def lines(self) -> list[dict[str, Any]]:
        """Return the run's record."""
        return round_lines.read(self.folder.run)

    def round(self) -> int:
        """Return the last committed round; -1 before there is one."""
        lines = self.lines()
        return int(lines[-1]["round"]) if lines else -1

    def wait(self, happened: Callable[[], Any], what: str) -> Any:
        """Wait until something is true and return it; fail at once if the server has ended."""
        end = time.monotonic() + PATIENCE
        while True:
            code = self.server.process.poll() if self.server else None
            if found := happened():
                return found
            assert code is None, f"the server ended with code {code} before {what}\n{self.told()}"
            late = f"not within {PATIENCE:.0f} s: {what}"
            assert time.monotonic() < end, f"{late}\n{self.told()}"
            time.sleep(0.1)

    def wait_round(self, number: int) -> dict[str, Any]:
        """Wait until a round is committed and return its line."""
        self.wait(lambda: self.round() >= number, f"round {number}")
        return next(line for line in self.lines() if line["round"] == number)

    def until(self, happened: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """Wait for a round from now on of which something is true, and return its line."""
        reached = self.round()

        def look() -> dict[str, Any] | None:
            later = (line for line in self.lines() if line["round"] > reached)
            return next((line for line in later if happened(line)), None)

        line: dict[str, Any] = self.wait(look, what)
        return line

    def nodes(self) -> dict[int, dict[str, Any]]:
        """Return what the SuperLink says of each enrolled site, by number."""
        with suppress(OSError, ValueError):
            return {s["number"]: s for s in json.loads(self.folder.nodes.read_bytes())["sites"]}
        return {}

    def told(self) -> str:
        """Return the ends of all logs, for a test that failed."""
        logs = [*sorted(self.root.glob("*.log")), self.folder.logs / "flower.log"]
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-_TAIL:]}"
            for log in logs
            if log.exists()
        )

    def audit(self, event: str) -> list[dict[str, Any]]:
        """Return the server's log lines of an event."""
        return [line for line in log_lines(self.folder.logs) if line.get("event") == event]

    def end(self) -> None:
        """End every process."""
        for process in reversed(self.running):
            process.end()


class Site:
    """One site: its folder, and its client while it runs."""

    def __init__(
        self, deployment: Deployment, folder: SiteFolder, number: int, invitation: Path
    ) -> None:
        self.deployment, self.folder, self.number, self.invitation = (
            deployment,
            folder,
            number,
            invitation,
        )
        self.client: Running | None = None

    def start(self, netns: str = "") -> Running:
        """Start ``flower-client start``."""
        command = [SCRIPTS / "flower-client", "start", self.folder.path]
        self.client = self.deployment.run(command, self.folder.path.name, netns)
        return self.client

    def trained(self) -> list[dict[str, Any]]:
        """Return what the site's own log says of the updates that left."""
        lines = _json_lines(self.folder.egress)
        return [line for line in lines if line["kind"] == "train" and "error" not in line]


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the JSON logs of a folder, rotated ones too."""
    return [line for path in sorted(folder.glob("*.jsonl*")) for line in _json_lines(path)]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(text))
    return found


@contextmanager
def deployment(
    root: Path, settings: Mapping[str, Any] | None, host: str = "127.0.0.1", days: int = 397
) -> Iterator[Deployment]:
    """Make a deployment and surely end every process of it; None leaves its folder to be made."""
    made = Deployment(root, host)
    try:
        if settings is not None:
            made.make(settings, days)
        yield made
    finally:
        made.end()
