"""Logs: one object a line, whatever is said; Flower's own among them."""

import json
import logging
import logging.handlers
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedprompt.errors import StorageError
from fedprompt.processes import logs

log = logging.getLogger("fedprompt.test")


@pytest.fixture(autouse=True)
def _as_before():
    """Leave the logging of other tests as it was."""
    names = [None, *logs.OURS]
    loggers = [logging.getLogger(name) for name in names]
    before = [(x, x.level, x.propagate, list(x.handlers)) for x in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, propagate, handlers in before:
        for new in set(logger.handlers) - set(handlers):
            new.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_time_level_logger_message_and_extras(tmp_path):
    path = tmp_path / "new" / "server.log"
    logs.configure(path)
    log.info("round %d of %d", 3, 10, extra={"event": "round", "round": 3, "sites": [0, 2]})
    (line,) = lines(path)
    moment = datetime.fromisoformat(line.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert line == {
        "level": "info", "logger": "fedprompt.test", "message": "round 3 of 10",
        "event": "round", "round": 3, "sites": [0, 2],
    }  # fmt: skip


def test_what_is_said_cannot_break_a_line(tmp_path):
    path = tmp_path / "server.log"
    logs.configure(path)
    odd = {"loss": math.nan, "path": Path("x"), "time": "mine", logs.ROUND: {"sites": {}}}
    log.warning('site said "\n{"level":"info"}\x1b[2J"', extra=odd)
    (line,) = lines(path)
    assert line["message"] == 'site said "\n{"level":"info"}\x1b[2J"'
    assert (line["loss"], line["path"]) == ("nan", "x")
    assert line["time"] != "mine"
    assert logs.ROUND not in line
    assert "NaN" not in path.read_text()


def test_a_traceback_is_kept_in_one_line(tmp_path):
    path = tmp_path / "server.log"
    logs.configure(path)
    try:
        raise ValueError("broken pipe")
    except ValueError:
        log.exception("site 2 raised")
    (line,) = lines(path)
    assert line["level"] == "error"
    assert "ValueError: broken pipe" in line["error"]


def test_standard_error_is_plain_or_json(capsys):
    logs.configure(None, as_json=False)
    log.warning("site said\nround 9/9, all well\x1b[2J")
    logs.configure(None)
    log.warning("again")
    plain, as_json = capsys.readouterr().err.splitlines()
    said = "Z warning fedprompt.test: site said\\nround 9/9, all well\\x1b[2J"
    assert plain.endswith(said)
    assert json.loads(as_json)["message"] == "again"


def test_a_plain_traceback_is_indented(capsys):
    logs.configure(None, as_json=False)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("raised")
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("    ") for line in told[1:])


def test_the_level_holds_for_us_and_flower_others_are_told_from_warnings(tmp_path):
    path = tmp_path / "server.log"
    logs.configure(path, level=logging.INFO)
    for name in ("fedprompt.a", "server.b", "client.c", "flwr", "httpx"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "x")
    told = [(line["logger"], line["level"]) for line in lines(path)]
    ours = [(n, v) for n in ("fedprompt.a", "server.b", "client.c", "flwr") for v in told_levels()]
    assert told == [*ours, ("httpx", "warning")]


def told_levels():
    return ("info", "warning")


def test_flowers_own_console_falls_silent():
    """In a process of its own: Flower sets its logger up at import."""
    code = (
        "import logging, flwr.app; from fedprompt.processes import logs; logs.configure(None);"
        "logging.getLogger('flwr').info('from flower')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["message"] == "from flower"
    assert done.stdout == ""


def test_a_second_call_replaces_the_first(tmp_path):
    logs.configure(tmp_path / "one.log")
    logs.configure(tmp_path / "two.log")
    log.info("hello")
    assert lines(tmp_path / "one.log") == []
    assert len(lines(tmp_path / "two.log")) == 1


def test_the_file_is_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_BYTES", 1000)
    monkeypatch.setattr(logs, "_BACKUPS", 2)
    logs.configure(tmp_path / "site.log")
    for i in range(50):
        log.info("line %d", i)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["site.log", "site.log.1", "site.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert lines(tmp_path / "site.log")[-1]["message"] == "line 49"


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="give another file"):
        logs.configure(tmp_path / "folder")


def test_warnings_of_python_are_logged(tmp_path):
    code = (
        "import sys, warnings; from pathlib import Path; from fedprompt.processes import logs;"
        "logs.configure(Path(sys.argv[1])); warnings.warn('old file')"
    )
    path = tmp_path / "site.log"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    (line,) = lines(path)
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "old file" in line["message"]
