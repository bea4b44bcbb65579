"""The record: one line a round, whole or absent."""

import errno
import os

import pytest

from fedprompt.errors import StorageError
from server import record


def test_lines_come_back(tmp_path):
    path = tmp_path / "run" / "rounds.jsonl"
    for i in range(3):
        record.append(path, {"round": i, "loss": 0.5})
    assert [line["round"] for line in record.read(path)] == [0, 1, 2]


def test_a_number_that_json_refuses_ends_no_run(tmp_path):
    path = tmp_path / "rounds.jsonl"
    told = {"loss": float("nan"), "sites": {"0": {"nll": float("inf"), "accuracy": 1.0}}}
    record.append(path, {"round": 0, "all": [1.0, float("-inf")], **told})
    (line,) = record.read(path)
    sites = {"0": {"nll": None, "accuracy": 1.0}}
    assert line == {"round": 0, "loss": None, "sites": sites, "all": [1.0, None]}


def test_no_file_is_an_empty_record(tmp_path):
    assert record.read(tmp_path / "none") == []


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "rounds.jsonl"
    record.append(path, {"round": 0})
    path.write_bytes(path.read_bytes() + b'{"round":1,"lo')
    assert record.read(path) == [{"round": 0}]


@pytest.mark.parametrize("damage", [b'{"round":1,', b"\x00\xff", b"7", b"{}", b'{"round":"1"}'])
def test_a_damaged_line_costs_its_round_and_no_later_one(tmp_path, damage):
    path = tmp_path / "rounds.jsonl"
    for i in range(4):
        record.append(path, {"round": i})
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]) + b"\n")
    assert [line["round"] for line in record.read(path)] == [0, 2, 3]
    record.truncate(path, 2)  # as a resumed run does
    assert [line["round"] for line in record.read(path)] == [0, 2]


def test_truncate_drops_what_was_not_committed(tmp_path):
    path = tmp_path / "rounds.jsonl"
    for i in range(4):
        record.append(path, {"round": i})
    record.truncate(path, 1)
    assert record.read(path) == [{"round": 0}, {"round": 1}]
    record.truncate(path, -1)
    assert path.read_bytes() == b""


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="could not be extended"):
        record.append(tmp_path / "rounds.jsonl", {"round": 0})


def test_summary_reads_like_a_log_line():
    line = {
        "round": 2, "asked": [0, 1, 2], "accepted": [0, 2], "loss": 1.25, "accuracy": 0.5,
        "worst_client_acc": 0.25, "bytes_up": 4624, "bytes_down": 4600, "seconds": 1.26,
        "verdicts": [{"site": 1, "accepted": False}, {"site": 0, "accepted": True}],
    }  # fmt: skip
    assert record.summary(line, 10) == (
        "round 2/10, 2 of 3 sites, loss 1.2500, accuracy 0.5000, worst 0.2500, "
        "4,624 bytes up, 4,600 down, refused sites [1], 1.3 s"
    )


def test_summary_of_an_unevaluated_round_is_short():
    assert record.summary({"round": 0, "seconds": 0.0}, 3) == "round 0/3, 0.0 s"


def test_a_private_round_tells_what_was_spent():
    line = {"round": 2, "seconds": 1.0, "epsilon": 1.7512}
    assert record.summary(line, 3) == "round 2/3, epsilon 1.75, 1.0 s"
