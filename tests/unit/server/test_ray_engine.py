"""What is handed to Flower's Ray engine; a real Ray run is in tests/integration."""

import subprocess
import sys
import tomllib

import pytest

from fedprompt.errors import FedpromptError
from server import ray_engine
from server.ray_engine import write_app


def test_the_bundle_carries_every_setting_and_no_code(tmp_path):
    settings = {
        "data.source": 'a "quoted" \\ path',
        "data.alpha": 0.3,
        "server.rounds": 4,
        "x": True,
    }
    folder = write_app(tmp_path / "app", settings)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == settings
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "server.app:app",
        "clientapp": "client.app:app",
    }
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]


def test_flowers_refusal_is_one_clear_error(monkeypatch):
    def fail(command, **_):
        told = '{"success": false, "error-message": "no such SuperLink"}'
        return subprocess.CompletedProcess(command, 1, told, "")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(FedpromptError, match="`flwr run` failed: no such SuperLink"):
        ray_engine._flwr({}, "run", "app")


def test_a_superlink_that_dies_is_told_with_its_log(tmp_path):
    log = tmp_path / "superlink.log"
    log.write_text("port in use")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    process.wait()
    with pytest.raises(FedpromptError, match="port in use"):
        ray_engine._await(1, process, log)
