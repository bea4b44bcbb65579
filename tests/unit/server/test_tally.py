"""The record summed up as it grows, without reading it again."""

import pytest

from server import record
from server.tally import Tally


def line(server_round, **more):
    return {"round": server_round, "bytes_up": 10, "bytes_down": 20, **more}


def totals(tally):
    tally.update()
    return tally.last.get("round"), tally.up, tally.down


def test_what_was_added_is_added(tmp_path):
    path = tmp_path / "rounds.jsonl"
    tally = Tally(path)
    assert totals(tally) == (None, 0, 0)
    record.append(path, line(0, join_bytes_up=1, join_bytes_down=2))
    assert totals(tally) == (0, 11, 22)
    record.append(path, line(1, evaluation_bytes_up=3, evaluation_bytes_down=4))
    record.append(path, line(2))
    assert totals(tally) == totals(tally) == (2, 34, 66)


def test_only_what_was_added_is_read(tmp_path, monkeypatch):
    path = tmp_path / "rounds.jsonl"
    for i in range(10_000):
        with path.open("ab") as file:
            file.write(b'{"bytes_down":20,"bytes_up":10,"round":%d}\n' % i)
    tally = Tally(path)
    assert totals(tally) == (9_999, 100_000, 200_000)
    record.append(path, line(10_000))
    parsed = []
    monkeypatch.setattr("server.tally._parse", lambda text: parsed.append(text))
    tally.update()
    assert len(parsed) == 1


def test_a_torn_line_waits_for_its_end(tmp_path):
    path = tmp_path / "rounds.jsonl"
    record.append(path, line(0))
    whole = path.read_bytes()
    tally = Tally(path)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:cut])
        assert totals(tally) == (0, 10, 20)
    path.write_bytes(whole + whole)
    assert totals(tally) == (0, 20, 40)


@pytest.mark.parametrize("junk", [b"{\n", b"[]\n", b"\xff\n"])
def test_nothing_after_junk_is_believed(tmp_path, junk):
    path = tmp_path / "rounds.jsonl"
    record.append(path, line(0))
    path.write_bytes(path.read_bytes() + junk + path.read_bytes())
    assert totals(Tally(path)) == (0, 10, 20)


def test_a_record_that_was_cut_is_summed_up_afresh(tmp_path):
    path = tmp_path / "rounds.jsonl"
    for i in range(4):
        record.append(path, line(i))
    tally = Tally(path)
    assert totals(tally) == (3, 40, 80)
    record.truncate(path, 1)  # a resumed run drops what was never committed
    assert totals(tally) == (1, 20, 40)
    record.truncate(path, -1)
    assert totals(tally) == (None, 0, 0)


def test_a_record_that_was_replaced_by_a_longer_one_is_noticed(tmp_path):
    path = tmp_path / "rounds.jsonl"
    record.append(path, line(0))
    tally = Tally(path)
    tally.update()
    path.unlink()
    for i in range(3):
        record.append(path, line(i, bytes_up=7))
    assert totals(tally) == (2, 21, 60)
    path.unlink()
    assert totals(tally) == (None, 0, 0)


def test_refused_replies_are_counted_by_reason(tmp_path):
    path = tmp_path / "rounds.jsonl"
    refused = {"accepted": False, "reasons": ["not-finite"]}
    late = {"accepted": False, "reasons": ["timeout"]}
    clipped = {"accepted": True, "reasons": ["clipped"]}
    record.append(path, line(0, refused=[refused]))
    record.append(path, line(1, verdicts=[refused, clipped], evaluation_verdicts=[late]))
    tally = Tally(path)
    tally.update()
    assert tally.refused == {"not-finite": 2, "timeout": 1}
