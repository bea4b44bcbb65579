"""Run a simulation on Flower's Ray engine, as ``flwr run`` does, and clean up after it.

A SuperLink of our own in simulation mode takes the run, so that no other project's SuperLink is
used and none is left behind; its home is a temporary folder.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprompt.errors import FedpromptError
from fedprompt.processes import parent_watchdog
from fedprompt.protocol.address import free_port, is_answering
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.server import ServerConfig
from server.rounds.flower_cli import FlowerCli, environment, write_app
from server.rounds.progress import Display
from server.run_folder import run_status

_PAUSE = 1.0  # seconds between two looks at the run
_START = 60.0  # seconds the SuperLink may take to answer


def run_ray(config: RunConfig, shown: Display) -> None:
    """Run server and sites on Ray and show the rounds as they are committed.

    Raises
    ------
    FedpromptError
        What ended the run in the server's process, or Flower's own message.
    """
    server, sites = config.server, config.data.clients
    folder = RunFolder(Path(server.output))
    with (
        tempfile.TemporaryDirectory(prefix="fedprompt-ray-") as home,
        _superlink(Path(home)) as flower,
    ):
        app = write_app(Path(home) / "app", config.flat())
        earlier = folder.records()
        run = flower.submit(app, "--federation-config", _resources(sites, server))
        details = _follow(run, flower, folder, earlier, shown, resume=server.resume)
    run_status.raise_failure(folder.path)
    if run_status.read(folder.path) is None:
        raise FedpromptError(f"the Ray run ended without a result: {details}")


@contextmanager
def _superlink(home: Path) -> Iterator[FlowerCli]:
    """Run a SuperLink on a free port; yield the way to reach it.

    What carries out its runs is started here too: a SuperLink gives it a process group of its own,
    and the simulation in there would go on to its last round whatever becomes of the SuperLink.
    """
    port = free_port()
    flower = FlowerCli(home, f"127.0.0.1:{port}")
    flower.connect()
    link = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
    link += ["--port", str(port), "--disable-runtime-dependency-installation"]
    link += ["--isolation", "process"]
    executor = ["flower-superexec", "--insecure", "--runtime-api-address", flower.address]
    with leashed(link, home) as process:
        _await(port, process, home / "flower-superlink.log")
        with leashed(executor, home):
            yield flower


@contextmanager
def leashed(command: list[str], home: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run one of Flower's processes, and end it with all that it started."""
    with (home / f"{command[0]}.log").open("wb") as log:
        process = parent_watchdog.start(command, environment(home), log)
    try:
        yield process
    finally:
        parent_watchdog.end(process)


def _resources(sites: int, server: ServerConfig) -> str:
    return (
        f"num-supernodes={sites} client-resources-num-cpus={server.client_cpus:g} "
        f"client-resources-num-gpus={server.client_gpus:g}"
    )


def _follow(
    run: str,
    flower: FlowerCli,
    folder: RunFolder,
    earlier: list[RoundRecord],
    shown: Display,
    *,
    resume: bool,
) -> str:
    """Show rounds until the run is over; return its last status from Flower.

    ``earlier`` are the rounds that the folder's record held before: a fresh run clears them.
    """
    seen = len(earlier)
    while True:
        status = flower.status(run)
        records = folder.records()
        if not resume and records[:1] != earlier[:1]:  # the earlier run's were cleared
            earlier, seen = records, 0
        for record in records[seen:]:
            shown.show(record)
        seen = max(seen, len(records))
        if status.startswith("finished"):
            return status
        time.sleep(_PAUSE)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the SuperLink answers."""
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        if is_answering(port):
            return
        time.sleep(0.2)
    tail = log.read_text(errors="replace")[-500:]
    raise FedpromptError(f"Flower's SuperLink did not start in {_START:.0f} s: {tail}")
