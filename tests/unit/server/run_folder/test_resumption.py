"""What a folder says to another configuration."""

import pytest

from fedprompt.errors import CheckpointError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig, defaults
from server.run_folder.checkpoint import Checkpoint, save
from server.run_folder.resumption import difference, last_committed
from tests.sites import start


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def begun(folder, **changes):
    own = {key.replace("__", "."): value for key, value in changes.items()}
    settings = RunConfig.parse(own).flat()
    folder.write_settings(settings)
    for i in range(3):
        folder.append(RoundRecord(round=i))
    save(folder.checkpoints, Checkpoint("own", 1, start()))
    return settings


def test_the_record_of_the_last_committed_round(folder):
    assert last_committed(folder, RunConfig.parse({}), "own") is None
    settings = begun(folder)
    assert last_committed(folder, RunConfig.parse(settings), "own") == RoundRecord(round=1)
    folder.record.unlink()
    assert last_committed(folder, RunConfig.parse(settings), "own") is None


def test_the_settings_that_differ_are_named(folder):
    settings = begun(folder, server__rounds=10)
    other = settings | {"server.rounds": 20, "prompt.rank": 2, "server.output": "elsewhere"}
    with pytest.raises(CheckpointError) as caught:
        last_committed(folder, RunConfig.parse(other), "another")
    found = str(caught.value)
    assert "prompt.rank was 1, is 2" in found
    assert "set prompt.rank = 1, server.rounds = 10, or" in found  # each as the run's folder has it
    assert "server.rounds was 10, is 20" in found
    assert "server.output" not in found


def test_a_folder_that_does_not_tell_its_rule_was_merged_by_product(folder):
    settings = begun(folder)
    folder.write_settings({key: v for key, v in settings.items() if key != "server.rule"})
    fresh = settings | {"server.rule": "fresh-basis"}
    assert difference(folder, RunConfig.parse(fresh)) == {"server.rule": ("product", "fresh-basis")}
    with pytest.raises(CheckpointError, match=r'to go on with it set server\.rule = "product", or'):
        last_committed(folder, RunConfig.parse(fresh), "another")
    assert difference(folder, RunConfig.parse(settings | {"server.rule": "product"})) == {}


def test_without_a_difference_the_checkpoint_speaks(folder):
    settings = begun(folder)
    with pytest.raises(CheckpointError, match="belongs to run own"):
        last_committed(folder, RunConfig.parse(settings), "another")


@pytest.mark.parametrize("junk", [b"[", b"[]"])
def test_damaged_settings_name_nothing(folder, junk):
    begun(folder)
    folder.settings_file.write_bytes(junk)
    assert difference(folder, RunConfig.parse(defaults() | {"server.rounds": 99})) == {}
