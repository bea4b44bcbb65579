"""Drive Flower's own command line: submit, query and stop a run.

The submitted app bundle holds settings only: server and sites import the installed fedprompt, with
its assets, which an app bundle cannot carry.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprompt import toml
from fedprompt.errors import FedpromptError
from fedprompt.processes import flower_environment

_CONNECTION = "fedprompt"  # name of the SuperLink in Flower's own configuration
_PATIENCE = 120.0  # seconds one command may take


def environment(home: Path) -> dict[str, str]:
    """Return the environment of Flower's processes, which find its other programs beside ours."""
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return flower_environment.variables(home) | {"PATH": scripts}


@dataclass(frozen=True)
class FlowerCli:
    """A client of one SuperLink's control API.

    Parameters
    ----------
    home
        Folder of Flower's own configuration; it is written here.
    address
        ``host:port`` of the control API, on loopback.
    certificate
        The CA that signed the SuperLink's certificate; None speaks plaintext.
    patience
        Seconds one command may take.
    """

    home: Path
    address: str
    certificate: Path | None = None
    patience: float = _PATIENCE

    def connect(self) -> None:
        """Write Flower's configuration of the connection."""
        trust = f"root-certificates = {json.dumps(str(self.certificate))}"
        lines = [
            "[superlink]",
            f'default = "{_CONNECTION}"',
            f"[superlink.{_CONNECTION}]",
            f'address = "{self.address}"',
            trust if self.certificate else "insecure = true",
        ]
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def submit(self, app: Path, *options: str) -> str:
        """Submit an app bundle and return the run's id."""
        return str(self._call("run", str(app), _CONNECTION, *options)["run-id"])

    def status(self, run: str) -> str:
        """Return a run's status, such as ``running`` or ``finished:completed``."""
        return str(self._call("ls", _CONNECTION, "--run-id", run)["runs"][0]["status"])

    def unfinished(self) -> list[str]:
        """Return the ids of the runs that are not over."""
        runs = self._call("ls", _CONNECTION)["runs"]
        return [str(run["run-id"]) for run in runs if not run["status"].startswith("finished")]

    def stop(self, run: str) -> None:
        """Stop a run; its ServerApp is ended by the SuperLink."""
        self._call("stop", run, _CONNECTION)

    def _call(self, *arguments: str) -> dict[str, Any]:
        command = ["flwr", *arguments, "--format", "json"]
        env = environment(self.home)
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, check=False, timeout=self.patience
            )
        except subprocess.TimeoutExpired:
            raise FedpromptError(
                f"`flwr {arguments[0]}` took over {self.patience:.0f} s: the SuperLink at "
                f"{self.address} does not answer; see its log"
            ) from None
        try:
            told: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            told = {}
        if done.returncode or not told.get("success"):
            found = told.get("error-message") or done.stderr or done.stdout
            raise FedpromptError(f"`flwr {arguments[0]}` failed: {str(found).strip()[:500]}")
        return told


def write_app(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write the app bundle that is submitted: a pyproject.toml with every setting."""
    folder.mkdir(parents=True, exist_ok=True)
    config = "\n".join(f"{toml.dumps(k)} = {toml.dumps(v)}" for k, v in settings.items())
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(config=config), encoding="utf-8")
    return folder


_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedprompt-run"
version = "0.1.0"
description = "One run"
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
