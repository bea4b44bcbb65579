"""Write logs for people and programs: JSON lines, or plain text.

One JSON object a line: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, ``error`` if
there is a traceback, and the values given as ``extra`` such as ``event``, ``round``, ``site``.
"""

import logging
import logging.handlers
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedprompt.errors import StorageError
from fedprompt.text import json_text, printable

OURS = ("fedprompt", "server", "client", "export", "flwr")  # logged from `level` on
PIPE = "FEDPROMPT_LOG_PIPE"  # set by a process that collects its descendants' lines
_BYTES, _BACKUPS = 10_000_000, 5  # size of one log file, how many older ones are kept
ROUND = "round_record"  # the extra that a committed round travels as; it has a file of its own
MARK = "fedprompt"  # name of the handlers that `configure` installs and replaces
_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName", ROUND}


def configure(path: Path | None, *, level: int = logging.INFO, as_json: bool = True) -> None:
    """Send this process's logs to standard error and, if given, to a file of its own.

    The file holds JSON lines and is rotated at 10 MB, five older ones are kept; two processes must
    not share it. A second call replaces the first. Call it when Flower is imported, if it is used:
    its logger sets itself up at import. Other libraries are logged from warnings on.

    Parameters
    ----------
    path
        The log file; None writes to standard error only.
    level
        The lowest level that is logged.
    as_json
        JSON lines on standard error too, for a journal that programs read; else plain text.

    Raises
    ------
    StorageError
        The file cannot be opened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(JsonFormatter() if as_json else PlainFormatter())
    if path:
        handlers.append(_rotating(path))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.name == MARK]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.name = MARK
        handler.setLevel(level)  # Flower's logger lets everything through if it is imported later
        root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    _take_over("flwr")
    logging.captureWarnings(True)


def tell_parent() -> None:
    """Write JSON lines to the pipe that an ancestor of this process reads, if there is one.

    Flower throws away what its ServerApp writes to standard error.
    """
    if pipe := os.environ.get(PIPE):
        configure(Path(pipe))


class JsonFormatter(logging.Formatter):
    """Write a log record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what JSON cannot hold is written as text."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in extras(record).items() if key not in fields}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json_text(fields)


class PlainFormatter(logging.Formatter):
    """Write a log record as a line for a person; what others sent cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback indented below it."""
        lines = [f"{self.head(record)}: {record.getMessage()}"]
        if record.exc_info:
            lines += [f"    {part}" for part in self.formatException(record.exc_info).splitlines()]
        return "\n".join(printable(part) for part in lines)

    def head(self, record: logging.LogRecord) -> str:
        """Return what a line begins with."""
        return f"{_time(record)} {record.levelname.lower():7} {record.name}"


class CommandFormatter(PlainFormatter):
    """Write a log record as a command's own remark: no time, no level."""

    def head(self, record: logging.LogRecord) -> str:
        """Return what a line begins with."""
        return record.name


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's ``extra`` values."""
    return {key: _finite(value) for key, value in vars(record).items() if key not in _STANDARD}


def _rotating(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_BYTES, backupCount=_BACKUPS, encoding="utf-8"
        )
    except OSError as error:
        raise StorageError(
            f"the log {path} cannot be written: {error.strerror}; give another file"
        ) from error
    handler.setFormatter(JsonFormatter())
    return handler


def _take_over(name: str) -> None:
    """Send a library's own logger to the handlers installed here instead of its own."""
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(value: object) -> object:
    """Return a number that JSON has no word for as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
