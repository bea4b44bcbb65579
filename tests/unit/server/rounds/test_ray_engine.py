"""What is handed to Flower's Ray engine; a real Ray run is in tests/integration."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fedprompt.errors import FedpromptError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from server.rounds import ray_engine


def test_a_superlink_that_dies_is_told_with_its_log(tmp_path):
    log = tmp_path / "superlink.log"
    log.write_text("port in use")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    process.wait()
    with pytest.raises(FedpromptError, match="port in use"):
        ray_engine._await(1, process, log)


def test_rounds_of_an_earlier_run_are_not_shown(tmp_path, monkeypatch):
    """A run that overwrites begins beside the old record and clears it when its server is up."""
    folder, shown = RunFolder(tmp_path), []
    old = [RoundRecord(round=i, seconds=1.0) for i in range(3)]
    new = [RoundRecord(round=i, seconds=2.0) for i in range(3)]
    states = iter([old, [], new[:1], new])

    def status(run):
        told = next(states)
        folder.record.write_bytes(b"".join(record.to_json() for record in told))
        return "finished" if told is new else "running"

    flower = SimpleNamespace(status=status)
    monkeypatch.setattr(ray_engine, "_PAUSE", 0.0)
    display = SimpleNamespace(show=shown.append)
    assert ray_engine._follow("1", flower, folder, old, display, resume=False) == "finished"
    assert shown == new


def test_a_resumed_run_shows_what_it_adds(tmp_path):
    folder, shown = RunFolder(tmp_path), []
    records = [RoundRecord(round=i, seconds=1.0) for i in range(3)]
    for record in records:
        folder.append(record)
    flower = SimpleNamespace(status=lambda run: "finished:completed")
    display = SimpleNamespace(show=shown.append)
    ray_engine._follow("1", flower, folder, records[:2], display, resume=True)
    assert shown == records[2:]
