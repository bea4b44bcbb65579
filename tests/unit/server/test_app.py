"""How the ServerApp ends: whatever is raised, its folder says why."""

import pytest
from flwr.app import Context, RecordDict

from fedprompt.errors import ConfigError
from fedprompt.settings.run_config import defaults
from server import app
from server.run_folder import run_status


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(app.logs, "tell_parent", lambda: None)
    monkeypatch.setattr(app.parent_watchdog, "watch_parent", lambda: None)


def main(folder, **settings):
    settings = {**defaults(), "server.output": str(folder), **settings}
    app.app(grid=None, context=Context(1, 0, {}, RecordDict(), settings))


@pytest.mark.parametrize("error", [ValueError("why"), MemoryError(), RecursionError("deep")])
def test_an_unexpected_error_is_left_in_the_outcome(tmp_path, monkeypatch, error):
    def run(*_):
        raise error

    monkeypatch.setattr(app, "run", run)
    with pytest.raises(type(error)):
        main(tmp_path)
    told = run_status.read(tmp_path)
    assert told.error == type(error).__name__
    assert told.crashed
    assert "at server/app.py:" in told.message


def test_settings_that_are_refused_are_left_there_too(tmp_path):
    with pytest.raises(ConfigError):
        main(tmp_path, **{"server.rounds": -1})
    assert "rounds" in run_status.read(tmp_path).message


def test_what_an_earlier_run_left_is_not_touched_by_one_that_may_not_begin(tmp_path):
    run_status.write_success(tmp_path, "0" * 64)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/round-00001.safetensors").touch()
    with pytest.raises(ConfigError, match="holds an earlier run"):
        main(tmp_path)
    assert run_status.read(tmp_path).artefact == "0" * 64
