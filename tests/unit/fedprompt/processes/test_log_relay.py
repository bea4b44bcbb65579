import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.processes import logs
from fedprompt.processes.log_relay import log_record, parse, relaying_pipe, start_relay

LINE = {"time": "2026", "level": "warning", "logger": "fedprompt.audit", "message": "refused"}


def line(**values: object) -> str:
    return json.dumps(LINE | values) + "\n"


def test_a_json_line_is_the_record_it_was() -> None:
    first = logging.makeLogRecord(
        {
            "name": "fedprompt.rounds", "levelno": 30, "levelname": "WARNING",
            "msg": "100 % %s", "event": "refused", "site": 3, "created": 1767323045.678,
        }
    )  # fmt: skip
    again = parse(logs.JsonFormatter().format(first))
    assert (again.name, again.levelno, again.getMessage()) == (first.name, 30, "100 % %s")
    assert again.created == pytest.approx(first.created)
    assert logs.extras(again) == {"event": "refused", "site": 3}


def test_a_traceback_stays_with_its_line() -> None:
    assert parse(line(error="Traceback: x")).getMessage() == "refused\nTraceback: x"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{", "{}", "[]", "[1, 2]", "null", '{"level": 3}', '{"a":' * 9999,
     "[" * 5000, '{"level": "info", "logger": "x"}'],
)  # fmt: skip
def test_any_other_line_is_no_record(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    parse("{" + text)
    parse(line(message=text, level="info"))


@pytest.mark.parametrize(
    "odd",
    [
        {"time": "never", "level": "loud", "args": [1], "msg": 3, "levelno": "no"},
        {"time": 1e999, "level": None, "message": None, "logger": 7},
    ],
)
def test_odd_fields_still_make_a_record(odd: dict[str, object]) -> None:
    record = parse(line(**odd))
    assert record.levelno == logging.INFO
    assert logging.Formatter("%(asctime)s %(name)s %(message)s").format(record)


def test_a_line_cannot_make_a_record_something_else() -> None:
    record = parse(line(levelno=99, args=[1], name="root", msg="forged", exc_info=True))
    assert (record.name, record.levelno, record.exc_info) == (
        "fedprompt.audit", logging.WARNING, None,
    )  # fmt: skip
    assert record.getMessage() == "refused"


def test_records_and_text_of_a_process_are_told_apart() -> None:
    output = line() + "plain\n\n  \n" + line(message=" ") + "the last has no end"
    code = f"import sys; sys.stdout.write({output!r})"
    records, texts = list[logging.LogRecord](), list[str]()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    start_relay(child.stdout, records.append, texts.append).join(20)
    child.wait(60)
    assert [record.getMessage() for record in records] == ["refused"]
    assert texts == ["plain", "the last has no end"]


def test_a_pipe_survives_a_killed_writer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "log.pipe"
    with relaying_pipe(pipe, log_record):
        assert pipe.stat().st_mode & 0o777 == 0o600
        for text in (line(message="one"), "half a li"):
            with pipe.open("a") as file:
                file.write(text)
    assert [record.getMessage() for record in caplog.records] == ["one"]
    assert not pipe.exists()


def test_another_process_finds_the_pipe_by_its_environment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = tmp_path / "log.pipe"
    code = (
        "import logging; from fedprompt.processes import logs; logs.tell_parent(); "
        "logging.getLogger('fedprompt.rounds').info('round 1', extra={'site': 2})"
    )
    with relaying_pipe(pipe, log_record):
        environment = os.environ | {logs.PIPE: str(pipe)}
        subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, stderr=subprocess.DEVNULL
        )
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.site) == ("fedprompt.rounds", "round 1", 2)


def test_without_a_pipe_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.PIPE, raising=False)
    before = list(logging.getLogger().handlers)
    logs.tell_parent()
    assert logging.getLogger().handlers == before
