"""The record is believed line by line, or refused with the line's number."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprompt.errors import CheckpointError
from server import record
from server.report.lines import read_lines
from tests.unit.server.report.made_up_run import lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for line in lines(rounds=3):
        record.append(tmp_path / "rounds.jsonl", line)
    return tmp_path / "rounds.jsonl"


def test_what_the_server_wrote_comes_back(path):
    found, torn = read_lines(path)
    assert not torn
    assert [line.round for line in found] == [0, 1, 2, 3]
    assert found[3].nodes[7] == 1007
    assert found[3].sites[0].examples == 40
    assert found[0].refused[0].reasons == ("identity",)
    assert found[1].truncation_error == pytest.approx(0.131, abs=1e-3)


def test_no_file_and_an_empty_file_hold_no_round(tmp_path):
    assert read_lines(tmp_path / "rounds.jsonl") == ([], False)
    (tmp_path / "rounds.jsonl").touch()
    assert read_lines(tmp_path / "rounds.jsonl") == ([], False)


def test_a_torn_last_line_is_left_out_and_told(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    found, torn = read_lines(path)
    assert torn
    assert [line.round for line in found] == [0, 1, 2]
    path.write_bytes(whole[:-1])  # all but the newline: nothing is lost
    assert [line.round for line in read_lines(path)[0]] == [0, 1, 2, 3]


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
        read_lines(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[]", b"null", b"\xff\xfe", b"", b"[" * 100_000, b"NaN"])
def test_a_line_that_is_no_json_object_is_named(path, text):
    texts = path.read_bytes().splitlines()
    texts[2] = text
    path.write_bytes(b"\n".join(texts) + b"\n")
    with pytest.raises(CheckpointError, match="line 3 is damaged"):
        read_lines(path)


def test_missing_first_rounds_are_named(path):
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[2:]) + b"\n")
    with pytest.raises(CheckpointError, match="line 1 holds round 2, expected round 0"):
        read_lines(path)


def test_a_folder_in_its_place_is_one_clear_line(tmp_path):
    (tmp_path / "rounds.jsonl").mkdir()
    with pytest.raises(CheckpointError, match="could not be read"):
        read_lines(tmp_path / "rounds.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_cut_or_flip_is_read_or_refused_never_a_traceback(path, data):
    whole = path.read_bytes()
    broken = path.with_name("broken.jsonl")
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=3))
    broken.write_bytes((whole[:at] + byte + whole[at + 1 :])[:cut])
    try:
        found, _ = read_lines(broken)
    except CheckpointError:
        return
    assert [line.round for line in found] == list(range(len(found)))
