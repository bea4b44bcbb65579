"""Rounds on their way to trackers: the real TensorBoard and MLflow, and one that is moody."""

import gc
import logging
import shutil
import sys

import pytest

from fedprompt.errors import ConfigError
from server.rounds.loop import log
from server.run_folder.trackers import TRACKERS, chosen, feed, tracking
from tests.unit.server.run_folder.trackers.told import SETTINGS, commit, scalars

# libraries that MLflow and TensorBoard bring warn of each other's future
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_names_are_checked():
    assert chosen("") == []
    assert chosen(" mlflow, tensorboard") == ["mlflow", "tensorboard"]
    with pytest.raises(ConfigError, match="'wandb'; allowed are tensorboard, mlflow"):
        chosen("mlflow,wandb")


def test_a_tracker_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "server.run_folder.trackers.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"tensorboard, which is not installed.*fedprompt\[tra"),
        tracking("tensorboard", tmp_path, SETTINGS, None),
    ):
        pass


@pytest.mark.filterwarnings(  # TensorBoard's thread dies with the error, its file stays open
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)
def test_a_disk_that_goes_never_ends_the_run(tmp_path, caplog):
    with tracking("tensorboard,mlflow", tmp_path, SETTINGS, None):
        commit(0)
        shutil.rmtree(tmp_path)
        for i in range(1, 4):
            commit(i)
    gc.collect()
    for name in ("tensorboard", "mlflow"):
        assert f"{name} took no figures" in caplog.text
    assert scalars(tmp_path)["accuracy"] == [(1, 0.6), (2, 0.7), (3, 0.8)]  # it is there again


class Moody:
    """A tracker whose server is away for a while."""

    away = False

    def __init__(self, folder, settings, last):
        self.rounds, self.closed = [], None
        Moody.made = self

    def log(self, record):
        if Moody.away:
            raise ConnectionError("no route to host")
        self.rounds.append(record.round)

    def close(self, *, done):
        self.closed = done
        if Moody.away:
            raise ConnectionError("no route to host")


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setattr(Moody, "away", False)
    monkeypatch.setitem(TRACKERS, "moody", "moody:Moody")
    module = type(sys)("moody")
    module.Moody = Moody
    monkeypatch.setitem(sys.modules, "moody", module)


def test_rounds_wait_for_a_tracker_that_was_away(tmp_path, moody, caplog):
    with tracking("moody", tmp_path, SETTINGS, None):
        commit(0)
        Moody.away = True
        commit(1)
        commit(2)
        Moody.away = False
        commit(3)
    assert Moody.made.rounds == [0, 1, 2, 3]
    assert "2 rounds wait, the run goes on" in caplog.text
    assert Moody.made.closed is True


def test_a_tracker_that_stays_away_hides_no_error(tmp_path, moody, caplog):
    def killed():
        with tracking("moody", tmp_path, SETTINGS, None):
            Moody.away = True
            commit(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert Moody.made.closed is False
    assert "moody was not closed" in caplog.text


def test_the_rounds_logger_is_left_as_it_was(tmp_path, moody):
    before = (log.level, list(log.handlers))
    with tracking("moody", tmp_path, SETTINGS, None):
        assert log.isEnabledFor(logging.INFO)
    assert (log.level, list(log.handlers)) == before
    with tracking("", tmp_path, SETTINGS, None):
        assert (log.level, list(log.handlers)) == before
    assert feed.TRACKERS is TRACKERS
