"""Run a simulation on Flower's Ray engine, as ``flwr run`` does, and clean up after it.

A SuperLink of our own in simulation mode takes the run, so that no other project's SuperLink is
used and none is left behind; its home is a temporary folder. The bundle that is submitted holds
the settings only: server and sites are imported from where fedprompt is installed, with its
assets, which a Flower bundle cannot carry.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedprompt.config import Flat, section
from fedprompt.data.config import DataConfig
from fedprompt.errors import FedpromptError
from server import outcome, record
from server.config import ServerConfig
from server.progress import Display
from server.rounds import RECORD

_PAUSE = 1.0  # seconds between two looks at the run
_START = 60.0  # seconds the SuperLink may take to answer
_CONNECTION = "fedprompt"  # name of the SuperLink in Flower's own configuration

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else each run reinstalls torch
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run_ray(settings: Flat, shown: Display) -> None:
    """Run server and sites on Ray and show the rounds as they are committed.

    Raises
    ------
    FedpromptError
        What ended the run in the server's process, or Flower's own message.
    """
    server = section(settings, "server", ServerConfig)
    sites = section(settings, "data", DataConfig).clients
    folder = Path(server.output)
    with (
        tempfile.TemporaryDirectory(prefix="fedprompt-ray-") as home,
        _superlink(Path(home)) as env,
    ):
        app = write_app(Path(home) / "app", settings)
        earlier: list[record.Line] = [*record.read(folder / RECORD)]
        run = _submit(app, env, sites, server)
        details = _follow(run, env, folder, earlier, shown, resume=server.resume)
    outcome.raise_failure(folder)
    if outcome.read(folder) is None:
        raise FedpromptError(f"the Ray run ended without a result: {details}")


def write_app(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write the bundle that is submitted: a pyproject.toml with every setting.

    TOML strings and JSON strings are written alike, and so are numbers and booleans.
    """
    folder.mkdir(parents=True)
    config = "\n".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in settings.items())
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(config=config), encoding="utf-8")
    return folder


_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedprompt-run"
version = "0.1.0"
description = "One simulation"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedprompt"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
{config}
"""


@contextmanager
def _superlink(home: Path) -> Iterator[dict[str, str]]:
    """Run a SuperLink on a free port; yield the environment that reaches it."""
    port = _free_port()
    env = os.environ | QUIET | {
        "FLWR_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }  # fmt: skip
    connection = f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
    connection += f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(connection, encoding="utf-8")
    command = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--disable-runtime-dependency-installation"]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(port, process, home / "superlink.log")
        yield env
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _submit(app: Path, env: Mapping[str, str], sites: int, server: ServerConfig) -> str:
    federation = (
        f"num-supernodes={sites} client-resources-num-cpus={server.client_cpus:g} "
        f"client-resources-num-gpus={server.client_gpus:g}"
    )
    told = _flwr(env, "run", str(app), _CONNECTION, "--federation-config", federation)
    return str(told["run-id"])


def _follow(
    run: str,
    env: Mapping[str, str],
    folder: Path,
    earlier: list[record.Line],
    shown: Display,
    *,
    resume: bool,
) -> str:
    """Show rounds until the run is over; return Flower's last word on it.

    ``earlier`` are the lines that the folder's record held before: a fresh run clears them.
    """
    seen = len(earlier)
    while True:
        status = _status(run, env)
        lines: list[record.Line] = [*record.read(folder / RECORD)]
        if not resume and lines[:1] != earlier[:1]:  # the earlier run's were cleared
            earlier, seen = lines, 0
        for line in lines[seen:]:
            shown.show(line)
        seen = max(seen, len(lines))
        if status.startswith("finished"):
            return status
        time.sleep(_PAUSE)


def _status(run: str, env: Mapping[str, str]) -> str:
    told = _flwr(env, "ls", _CONNECTION, "--run-id", run)
    return str(told["runs"][0]["status"])


def _flwr(env: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Run Flower's command line and return its JSON."""
    command = ["flwr", *arguments, "--format", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        told = {}
    if done.returncode or not told.get("success"):
        found = told.get("error-message") or done.stderr or done.stdout
        raise FedpromptError(f"`flwr {arguments[0]}` failed: {str(found).strip()[:500]}")
    return told


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the SuperLink answers."""
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    tail = log.read_text(errors="replace")[-500:]
    raise FedpromptError(f"Flower's SuperLink did not start in {_START:.0f} s: {tail}")
