import itertools
import json
import os
from pathlib import Path

import pytest

from client.deployment import egress_log as module
from client.deployment.egress_log import EgressLog
from fedprompt.errors import StorageError
from fedprompt.files.hash_chain import FIRST
from fedprompt.identity import sha256_bytes


@pytest.fixture
def log(tmp_path: Path) -> EgressLog:
    return EgressLog(tmp_path / "egress.jsonl")


def filled(log: EgressLog, count: int = 4) -> EgressLog:
    for number in range(count):
        log.append({"kind": "train", "round": number, "bytes": 100})
    return log


def test_each_line_holds_the_hash_of_the_line_before(log: EgressLog) -> None:
    lines, faults = filled(log).verify()
    assert faults == []
    assert lines[0].entry["before"] == FIRST
    for before, line in itertools.pairwise(lines):
        assert line.entry["before"] == before.hash
    assert [line.entry["round"] for line in lines] == [0, 1, 2, 3]
    assert log.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["removed", "edited", "swapped"])
def test_a_log_that_was_tampered_with_shows_it(log: EgressLog, change: str) -> None:
    lines = filled(log).path.read_bytes().splitlines(keepends=True)
    if change == "removed":
        del lines[1]
    elif change == "edited":
        lines[1] = lines[1].replace(b'"round":1', b'"round":7')
    else:
        lines[1], lines[2] = lines[2], lines[1]
    log.path.write_bytes(b"".join(lines))
    faults = log.verify()[1]
    assert faults
    assert "egress.jsonl, line" in faults[0]


def test_a_new_process_goes_on_with_the_chain_and_the_day(log: EgressLog) -> None:
    filled(log, 2)
    again = EgressLog(log.path)
    assert again.sent_today() == 200
    again.append({"kind": "query", "bytes": 5})
    assert again.sent_today() == 205
    assert log.verify()[1] == []


def test_another_day_starts_from_nothing(log: EgressLog, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(log, 2)
    monkeypatch.setattr(module, "_today", lambda: "2999-01-01")
    assert log.sent_today() == 0
    log.append({"bytes": 7})
    assert log.sent_today() == 7


def test_a_line_torn_by_a_power_cut_breaks_no_chain(log: EgressLog) -> None:
    data = filled(log, 3).path.read_bytes()
    log.path.write_bytes(data[:-20])
    log.append({"bytes": 1})
    lines, faults = log.verify()
    assert faults == []
    assert [line.entry is None for line in lines] == [False, False, True, False]
    assert log.sent_today() == 201  # the torn one never left


def test_a_full_file_is_kept_and_the_chain_goes_on(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 500)
    filled(log, 12)
    found = log.files()
    assert len(found) > 2
    assert found[-1] == log.path
    assert all(file.stat().st_size < 1000 for file in found)
    lines, faults = log.verify()
    assert (len(lines), faults) == (12, [])
    assert log.sent_today() == 1200
    found[0].unlink()
    assert log.verify()[1]


def test_a_file_that_was_put_away_makes_no_room_for_another_to_be_overwritten(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 500)
    filled(log, 12)
    first, *kept, _ = log.files()
    first.unlink()
    before = {file: file.read_bytes() for file in kept}
    filled(log, 12)
    assert len(log.files()) > len(kept) + 2
    assert {file: file.read_bytes() for file in kept} == before


def test_the_chain_goes_on_right_after_a_file_was_closed(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(log, 3)
    log.path.rename(log.path.with_name("egress-000001.jsonl"))  # a kill between the two steps
    filled(log, 1)
    assert log.verify()[1] == []


def test_it_is_on_the_disk_before_append_returns(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(log.path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    log.append({"bytes": 3})
    assert json.loads(synced[0])["bytes"] == 3


def test_f23_a_full_disk_leaves_the_old_lines_and_says_that_nothing_leaves(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(log, 2).path.read_bytes()
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) <= 10:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:10])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match=r"No space left .* nothing leaves"):
        log.append({"bytes": 3})
    assert log.path.read_bytes() == before


def test_what_json_has_no_word_for_is_not_written(log: EgressLog) -> None:
    with pytest.raises(StorageError):
        log.append({"bytes": 1, "metrics": {"loss": float("nan")}})
    assert not log.path.exists() or not log.path.read_bytes()


OLD = """\
{"before":"0000000000000000000000000000000000000000000000000000000000000000","bytes":9,"day":"2999-01-01","day_bytes":9,"kind":"query"}
{"before":"BEFORE","bytes":5,"day":"2999-01-01","day_bytes":14,"kind":"train"}
"""


def test_a_log_of_an_earlier_version_is_read_and_continued(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = OLD.partition("\n")[0].encode()
    log.path.write_text(OLD.replace("BEFORE", sha256_bytes(first)))
    monkeypatch.setattr(module, "_today", lambda: "2999-01-01")
    assert log.sent_today() == 14
    log.append({"bytes": 1})
    lines, faults = log.verify()
    assert (len(lines), faults, log.sent_today()) == (3, [], 15)
    log.path.write_text(log.path.read_text().replace('"kind":"query"', '"kind":"QUERY"'))
    (fault,) = log.verify()[1]
    assert fault == "egress.jsonl, line 2: a line before it was changed, added or taken out"
