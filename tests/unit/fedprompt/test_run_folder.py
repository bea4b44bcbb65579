"""A run's folder: its record is believed line by line, or refused with the line's number."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprompt.errors import CheckpointError, ConfigError, StorageError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from tests import round_lines
from tests.unit.server.run_folder.report.made_up_run import lines


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    for line in lines(rounds=3):
        round_lines.append(tmp_path, line)
    return RunFolder(tmp_path)


@pytest.fixture
def path(run: RunFolder) -> Path:
    return run.record


def rounds(run: RunFolder) -> list[int]:
    return [record.round for record in run.records()]


def test_rounds_come_back(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert (run.records(), run.last()) == ([], None)
    written = [RoundRecord(round=i, loss=0.5) for i in range(3)]
    for record in written:
        run.append(record)
    assert run.records() == written
    assert run.last() == written[2]


def test_a_torn_line_is_left_out(run, path):
    path.write_bytes(path.read_bytes() + b'{"round":4,"lo')
    assert rounds(run) == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", [b'{"round":1,', b"\x00\xff", b"7", b"{}", b'{"round":"1"}'])
def test_a_damaged_line_costs_its_round_and_no_later_one(run, path, damage):
    texts = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([texts[0], damage, *texts[2:]]) + b"\n")
    assert rounds(run) == [0, 2, 3]
    run.truncate(2)  # as a resumed run does
    assert rounds(run) == [0, 2]


def test_truncate_drops_what_was_not_committed_and_keeps_the_rest_byte_by_byte(run, path):
    odd = b'{"round": 0,   "mood": "a later release"}\n'
    texts = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(odd + b"".join(texts[1:]))
    run.truncate(1)
    assert path.read_bytes() == odd + texts[1]
    run.truncate(-1)
    assert path.read_bytes() == b""


def test_a_full_disk_is_one_clear_error(run, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="could not be extended"):
        run.append(RoundRecord(round=4))


def test_what_the_server_wrote_comes_back(path):
    found, torn = RunFolder(path.parent).checked_records()
    assert not torn
    assert [line.round for line in found] == [0, 1, 2, 3]
    assert found[3].nodes[7] == 1007
    assert found[3].sites[0].examples == 40
    assert found[0].refused[0].reasons == ("identity",)
    assert found[1].truncation_error == pytest.approx(0.131, abs=1e-3)


def test_no_file_and_an_empty_file_hold_no_round(tmp_path):
    assert RunFolder(tmp_path).checked_records() == ([], False)
    (tmp_path / "rounds.jsonl").touch()
    assert RunFolder(tmp_path).checked_records() == ([], False)


def test_a_torn_last_line_is_left_out_and_told(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    found, torn = RunFolder(path.parent).checked_records()
    assert torn
    assert [line.round for line in found] == [0, 1, 2]
    path.write_bytes(whole[:-1])  # all but the newline: nothing is lost
    assert [line.round for line in RunFolder(path.parent).checked_records()[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 1.5}, "accuracy: Input should be less than or equal to 1"),
        ({"accuracy": "0.5"}, "accuracy: Input should be a valid number"),
        ({"bytes_up": -1}, "bytes_up"),
        ({"sites": {"0": {"accuracy": 0.5}}}, "sites.0.examples: Field required"),
        ({"sites": [0.5]}, "sites"),
        ({"verdicts": "none"}, "verdicts"),
        ({"round": None}, "round"),
        ({"round": 5}, "holds round 5, expected round 1"),
    ],
)
def test_a_damaged_line_is_named(path, change, message):
    texts = path.read_bytes().splitlines()
    texts[1] = json.dumps(json.loads(texts[1]) | change).encode()
    path.write_bytes(b"\n".join(texts) + b"\n")
    with pytest.raises(CheckpointError, match=r"line 2") as caught:
        RunFolder(path.parent).checked_records()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[]", b"null", b"\xff\xfe", b"", b"[" * 100_000, b"NaN"])
def test_a_line_that_is_no_json_object_is_named(path, text):
    texts = path.read_bytes().splitlines()
    texts[2] = text
    path.write_bytes(b"\n".join(texts) + b"\n")
    with pytest.raises(CheckpointError, match="line 3 is damaged"):
        RunFolder(path.parent).checked_records()


def test_missing_first_rounds_are_named(path):
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[2:]) + b"\n")
    with pytest.raises(CheckpointError, match="line 1 holds round 2, expected round 0"):
        RunFolder(path.parent).checked_records()


def test_a_folder_in_its_place_is_one_clear_line(tmp_path):
    (tmp_path / "rounds.jsonl").mkdir()
    for read in (RunFolder(tmp_path).checked_records, RunFolder(tmp_path).records):
        with pytest.raises(CheckpointError, match="could not be read"):
            read()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_cut_or_flip_is_read_or_refused_never_a_traceback(path, data):
    whole = path.read_bytes()
    broken = path.parent / "broken" / path.name
    broken.parent.mkdir(exist_ok=True)
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=3))
    broken.write_bytes((whole[:at] + byte + whole[at + 1 :])[:cut])
    try:
        found, _ = RunFolder(broken.parent).checked_records()
    except CheckpointError:
        return
    assert [line.round for line in found] == list(range(len(found)))


def test_settings_come_back(tmp_path):
    run = RunFolder(tmp_path)
    assert run.settings() == run.checked_settings() == run.scoring_settings() == {}
    settings = {"data.source": "photos", "backbone.name": "embedded", "server.rounds": 3}
    run.write_settings(settings)
    assert run.settings() == run.checked_settings() == settings
    assert run.scoring_settings() == {"data.source": "photos", "backbone.name": "embedded"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", '{"a": [1]}', "[" * 100_000])
def test_damaged_settings_are_refused_where_they_are_needed(tmp_path, content):
    run = RunFolder(tmp_path)
    run.settings_file.write_text(content)
    assert run.settings() == {}
    with pytest.raises(CheckpointError, match=r"settings.json is damaged.*delete it"):
        run.checked_settings()
    with pytest.raises(ConfigError, match=r"settings.json is damaged.*delete it and give --config"):
        run.scoring_settings()


def test_the_folder_around_an_artefact_is_its_run(tmp_path):
    run = RunFolder.around(tmp_path / "run")
    assert run.path == RunFolder.around(run.artefact).path == (tmp_path / "run").resolve()
