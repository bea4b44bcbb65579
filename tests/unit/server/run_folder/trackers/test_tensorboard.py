"""The tracker, through the real TensorBoard."""

import pytest

from server.run_folder.trackers import tracking
from tests.unit.server.run_folder.trackers.told import SETTINGS, commit, line, scalars

# libraries that MLflow and TensorBoard bring warn of each other's future
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_tensorboard_shows_every_round(tmp_path):
    with tracking("tensorboard", tmp_path, SETTINGS, None):
        for i in range(3):
            commit(i)
    found = scalars(tmp_path)
    assert found["accuracy"] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert found["sites_accepted"] == [(0, 2), (1, 2), (2, 2)]
    assert "loss" not in found


def test_tensorboard_goes_on_after_a_resume(tmp_path):
    """Killed after round 2 was told and before it was committed: round 1 is the last."""
    with tracking("tensorboard", tmp_path, SETTINGS, None):
        for i in range(3):
            commit(i, accuracy=0.1 * i)
    with tracking("tensorboard", tmp_path, SETTINGS, line(1)):
        commit(2)
        commit(3)
    assert scalars(tmp_path)["accuracy"] == [(0, 0.0), (1, 0.6), (2, 0.7), (3, 0.8)]
