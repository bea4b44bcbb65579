"""The tracker, through the real MLflow over a local store."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedprompt.errors import ConfigError
from server.run_folder.trackers import tracking
from tests.unit.server.run_folder.trackers.told import SETTINGS, commit, line, runs

# libraries that MLflow and TensorBoard bring warn of each other's future
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_mlflow_keeps_settings_and_every_round(tmp_path):
    with tracking("mlflow", tmp_path, SETTINGS, None):
        for i in range(3):
            commit(i)
    ((run, metrics),) = runs(tmp_path)
    assert run.data.params == {"server.rounds": "3", "prompt.rank": "1"}
    assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
    assert metrics["accuracy"] == [(0, 0.5), (1, 0.6), (2, 0.7)]


def test_mlflow_goes_on_in_the_same_run_after_a_resume(tmp_path):
    def killed():
        with tracking("mlflow", tmp_path, SETTINGS, None):
            commit(0)
            commit(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    ((run, _),) = runs(tmp_path)
    assert run.info.status == "KILLED"
    with tracking("mlflow", tmp_path, SETTINGS, line(2)):  # round 2 was committed, but not told
        commit(3)
    ((run, metrics),) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert metrics["accuracy"] == [(0, 0.5), (1, 0.6), (2, 0.7), (3, 0.8)]


def test_a_fresh_run_in_the_same_folder_is_another_mlflow_run(tmp_path):
    for _ in range(2):
        with tracking("mlflow", tmp_path, SETTINGS, None):
            commit(0)
    assert len(runs(tmp_path)) == 2


@pytest.mark.slow
def test_mlflow_reports_nothing_to_its_makers(tmp_path):
    """In a process of its own: importing MLflow would start its telemetry's thread."""
    code = (
        "import sys, threading; from pathlib import Path; from server.trackers import tracking\n"
        "with tracking('mlflow', Path(sys.argv[1]), {}, None): pass\n"
        "print(*(thread.name for thread in threading.enumerate()))"
    )
    root = Path(__file__).parents[5]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["MainThread"]


def test_a_tracker_that_cannot_be_opened_stops_the_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with (
        pytest.raises(ConfigError, match="mlflow cannot be opened"),
        tracking("mlflow", tmp_path, SETTINGS, None),
    ):
        pass
