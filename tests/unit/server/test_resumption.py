"""What a folder says to another configuration."""

import pytest

from fedprompt.config import defaults
from fedprompt.errors import CheckpointError
from fedprompt.identity import canonical_json
from server import record
from server.checkpoint import Checkpoint, save
from server.record import SETTINGS
from server.resumption import difference, last_line
from tests.sites import start


def begun(folder, **changes):
    settings = defaults() | {key.replace("__", "."): value for key, value in changes.items()}
    (folder / SETTINGS).write_bytes(canonical_json(settings))
    for i in range(3):
        record.append(folder / "rounds.jsonl", {"round": i})
    save(folder / "checkpoints", Checkpoint("own", 1, start()))
    return settings


def test_the_line_of_the_last_committed_round(tmp_path):
    assert last_line(tmp_path, {}, "own") is None
    settings = begun(tmp_path)
    assert last_line(tmp_path, settings, "own") == {"round": 1}
    (tmp_path / "rounds.jsonl").unlink()
    assert last_line(tmp_path, settings, "own") is None


def test_the_settings_that_differ_are_named(tmp_path):
    settings = begun(tmp_path, server__rounds=10)
    other = settings | {"server.rounds": 20, "prompt.rank": 2, "server.output": "elsewhere"}
    with pytest.raises(CheckpointError) as caught:
        last_line(tmp_path, other, "another")
    found = str(caught.value)
    assert "prompt.rank was 1, is 2" in found
    assert "server.rounds was 10, is 20" in found
    assert "server.output" not in found


def test_without_a_difference_the_checkpoint_speaks(tmp_path):
    settings = begun(tmp_path)
    with pytest.raises(CheckpointError, match="belongs to run own"):
        last_line(tmp_path, settings, "another")


@pytest.mark.parametrize("junk", [b"[", b"[]"])
def test_damaged_settings_name_nothing(tmp_path, junk):
    begun(tmp_path)
    (tmp_path / SETTINGS).write_bytes(junk)
    assert difference(tmp_path, defaults() | {"server.rounds": 99}) == ""
