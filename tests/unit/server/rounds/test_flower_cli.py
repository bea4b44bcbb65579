"""What is said to Flower's command line; real runs are in tests/integration and tests/e2e."""

import subprocess
import tomllib

import pytest

from fedprompt.errors import FedpromptError
from server.rounds.flower_cli import FlowerCli, write_app


def test_the_bundle_carries_every_setting_and_no_code(tmp_path):
    settings = {
        "data.source": 'a "quoted" \\ path',
        "prompt.init": "naïve 日本 🙂 \x7f \t \u2028",
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


def test_flowers_refusal_is_one_clear_error(tmp_path, monkeypatch):
    def fail(command, **_):
        told = '{"success": false, "error-message": "no such SuperLink"}'
        return subprocess.CompletedProcess(command, 1, told, "")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(FedpromptError, match="`flwr run` failed: no such SuperLink"):
        FlowerCli(tmp_path, "127.0.0.1:1").submit(tmp_path)


def test_a_superlink_that_does_not_answer_is_no_endless_wait(tmp_path, monkeypatch):
    def hang(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(FedpromptError, match="does not answer"):
        FlowerCli(tmp_path, "127.0.0.1:1").status("7")


def test_only_finished_runs_are_over(tmp_path, monkeypatch):
    told = '{"success": true, "runs": [{"run-id": 1, "status": "running"}, '
    told += '{"run-id": 2, "status": "finished:stopped"}, {"run-id": 3, "status": "pending"}]}'
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, told, "")
    )
    assert FlowerCli(tmp_path, "127.0.0.1:1").unfinished() == ["1", "3"]


@pytest.mark.parametrize("trusted", [True, False])
def test_the_connection_is_written_for_flower(tmp_path, trusted):
    certificate = tmp_path / "ca.crt" if trusted else None
    FlowerCli(tmp_path / "home", "127.0.0.1:9093", certificate).connect()
    found = tomllib.loads((tmp_path / "home" / "config.toml").read_text())["superlink"]
    expected = {"root-certificates": str(certificate)} if trusted else {"insecure": True}
    assert found["fedprompt"] == {"address": "127.0.0.1:9093", **expected}
