import json
import logging

import pytest

from fedprompt.processes.log_relay import relay


def told(line: object, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    caplog.clear()
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    with caplog.at_level(logging.DEBUG):
        relay(data + b"\n", "worker")
    return list(caplog.records)


def test_a_json_line_is_logged_as_it_was_meant(caplog: pytest.LogCaptureFixture) -> None:
    line = {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "error",
        "logger": "fedprompt.worker",
        "message": "100 % of it",
        "error": "Traceback: ...",
        "event": "error",
        "round": 3,
    }
    (record,) = told(line, caplog)
    assert record.levelno == logging.ERROR
    assert record.name == "fedprompt.worker"
    assert record.getMessage() == "100 % of it\nTraceback: ..."
    assert (record.event, record.round, record.child) == ("error", 3, "worker")
    assert record.created == pytest.approx(1767323045.678)


@pytest.mark.parametrize(
    "line",
    [
        b"plain",
        b"[1, 2]",
        b"{}",
        b"\xff\xfe",
        b"[" * 5000,
        {"message": "x", "time": "never", "level": "loud", "args": [1], "msg": 3, "levelno": "no"},
        {"message": None},
    ],
)
def test_no_line_of_a_child_breaks_the_log(line: object, caplog: pytest.LogCaptureFixture) -> None:
    (record,) = told(line, caplog)
    assert record.getMessage()
    assert logging.Formatter("%(asctime)s %(message)s").format(record)


def test_blank_lines_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    assert told(b"  ", caplog) == []
    assert told({"message": ""}, caplog) == []
