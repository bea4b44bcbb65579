"""The record summed up as it grows, without reading it again."""

import pytest

from fedprompt.run_folder import RunFolder
from server.run_folder import record_totals as module
from server.run_folder.record_totals import Tally
from tests import round_lines


def line(server_round, **more):
    return {"round": server_round, "bytes_up": 10, "bytes_down": 20, **more}


def totals(tally):
    tally.update()
    return tally.last and tally.last.round, tally.up, tally.down


def test_what_was_added_is_added(tmp_path):
    path = tmp_path / "rounds.jsonl"
    tally = Tally(path)
    assert totals(tally) == (None, 0, 0)
    round_lines.append(tmp_path, line(0, join_bytes_up=1, join_bytes_down=2))
    assert totals(tally) == (0, 11, 22)
    round_lines.append(tmp_path, line(1, evaluation_bytes_up=3, evaluation_bytes_down=4))
    round_lines.append(tmp_path, line(2))
    assert totals(tally) == totals(tally) == (2, 34, 66)


def test_only_what_was_added_is_read(tmp_path, monkeypatch):
    path = tmp_path / "rounds.jsonl"
    for i in range(10_000):
        with path.open("ab") as file:
            file.write(b'{"bytes_down":20,"bytes_up":10,"round":%d}\n' % i)
    tally = Tally(path)
    assert totals(tally) == (9_999, 100_000, 200_000)
    round_lines.append(tmp_path, line(10_000))
    parsed = []
    monkeypatch.setattr(module, "parse", parsed.append)
    tally.update()
    assert len(parsed) == 1


def test_a_torn_line_waits_for_its_end(tmp_path):
    path = tmp_path / "rounds.jsonl"
    round_lines.append(tmp_path, line(0))
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
    round_lines.append(tmp_path, line(0))
    path.write_bytes(path.read_bytes() + junk + path.read_bytes())
    assert totals(Tally(path)) == (0, 10, 20)


def test_a_record_that_was_cut_is_summed_up_afresh(tmp_path):
    path = tmp_path / "rounds.jsonl"
    for i in range(4):
        round_lines.append(tmp_path, line(i))
    tally = Tally(path)
    assert totals(tally) == (3, 40, 80)
    RunFolder(tmp_path).truncate(1)  # a resumed run drops what was never committed
    assert totals(tally) == (1, 20, 40)
    RunFolder(tmp_path).truncate(-1)
    assert totals(tally) == (None, 0, 0)


def test_a_record_that_was_replaced_by_a_longer_one_is_noticed(tmp_path):
    path = tmp_path / "rounds.jsonl"
    round_lines.append(tmp_path, line(0))
    tally = Tally(path)
    tally.update()
    path.unlink()
    for i in range(3):
        round_lines.append(tmp_path, line(i, bytes_up=7))
    assert totals(tally) == (2, 21, 60)
    path.unlink()
    assert totals(tally) == (None, 0, 0)


def test_refused_replies_are_counted_by_reason(tmp_path):
    path = tmp_path / "rounds.jsonl"
    refused = {"node": 1, "accepted": False, "reasons": ["not-finite"]}
    late = {"node": 1, "accepted": False, "reasons": ["timeout"]}
    clipped = {"node": 1, "accepted": True, "reasons": ["clipped"]}
    round_lines.append(tmp_path, line(0, refused=[refused]))
    round_lines.append(tmp_path, line(1, verdicts=[refused, clipped], evaluation_verdicts=[late]))
    tally = Tally(path)
    tally.update()
    assert tally.refused == {"not-finite": 2, "timeout": 1}
