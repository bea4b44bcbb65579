import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.processes import logs
from server.deployment.chatter import Chatter, listening, record

LINE = {"time": "2026", "level": "warning", "logger": "fedprompt.audit", "message": "refused"}


def told(**values: object) -> str:
    return json.dumps(LINE | values) + "\n"


def test_a_line_of_ours_is_the_record_it_was():
    first = logging.makeLogRecord(
        {"name": "fedprompt.rounds", "levelno": 30, "levelname": "WARNING", "msg": "100 % %s",
         "event": "refused", "site": 3}
    )  # fmt: skip
    again = record(logs.JsonFormatter().format(first))
    assert (again.name, again.levelno, again.getMessage()) == (first.name, 30, "100 % %s")
    assert logs.extras(again) == {"event": "refused", "site": 3}


def test_a_traceback_stays_with_its_line():
    assert record(told(error="Traceback: x")).getMessage() == "refused\nTraceback: x"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{", "{}", "[]", "null", '{"level": 3}', '{"level": "loud"}', '{"a":' * 9999,
     json.dumps(LINE | {"level": None}), '{"level": "info", "logger": "x"}'],
)  # fmt: skip
def test_any_other_line_is_none(text):
    assert record(text) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text):
    record("{" + text)
    record(told(message=text, level="info"))


def test_a_line_cannot_make_a_record_something_else():
    found = record(told(levelno=99, args=[1], name="root", msg="forged", exc_info=True))
    assert (found.name, found.levelno, found.args, found.exc_info) == (
        "fedprompt.audit", logging.WARNING, (), None,
    )  # fmt: skip


def run(tmp_path, *lines: str, leaving: bool = False) -> str:
    """Let a child write lines; return what landed in Flower's file."""
    code = f"import sys; sys.stdin.readline(); sys.stdout.write({''.join(lines)!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    chatter = Chatter(child, tmp_path / "logs" / "flower.log")
    chatter.leaving = leaving
    child.stdin.write("go\n")
    child.stdin.close()
    assert chatter.join(20)
    child.wait(60)
    return (tmp_path / "logs" / "flower.log").read_text()


def test_our_lines_go_to_our_log_and_flowers_to_its_file(tmp_path, caplog):
    flower = run(
        tmp_path, "INFO: SuperLink\n", told(), "\n", told(logger="flwr", level="info"),
        told(logger="flwr", message="odd"), "the last has no end",
    )  # fmt: skip
    assert [(line.name, line.getMessage()) for line in caplog.records] == [
        ("fedprompt.audit", "refused"), ("flwr", "odd"),
    ]  # fmt: skip
    lines = flower.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("INFO: SuperLink", "the last has no end", 3)


def test_what_flower_complains_of_when_it_is_told_to_end_is_no_fault(tmp_path, caplog):
    flower = run(tmp_path, told(logger="flwr", message="lost"), told(), leaving=True)
    assert [line.name for line in caplog.records] == ["fedprompt.audit"]
    assert "lost" in flower


def test_lines_come_through_a_pipe_and_a_killed_writer_does_no_harm(tmp_path, caplog):
    pipe = tmp_path / "log.pipe"
    with listening(pipe):
        assert pipe.stat().st_mode & 0o777 == 0o600
        for text in (told(message="one"), told(logger="flwr", level="info"), "half a li"):
            with pipe.open("a") as file:
                file.write(text)
    assert [line.getMessage() for line in caplog.records] == ["one"]
    assert not pipe.exists()


def test_another_process_finds_the_pipe_by_its_environment(tmp_path, caplog):
    pipe = tmp_path / "log.pipe"
    code = (
        "import logging; from fedprompt.processes import logs; logs.tell_parent(); "
        "logging.getLogger('fedprompt.rounds').info('round 1', extra={'site': 2})"
    )
    with listening(pipe):
        environment = os.environ | {logs.PIPE: str(pipe)}
        subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, stderr=subprocess.DEVNULL
        )
    (line,) = caplog.records
    assert (line.name, line.getMessage(), line.site) == ("fedprompt.rounds", "round 1", 2)


def test_without_a_pipe_nothing_is_set_up(monkeypatch):
    monkeypatch.delenv(logs.PIPE, raising=False)
    before = list(logging.getLogger().handlers)
    logs.tell_parent()
    assert logging.getLogger().handlers == before
