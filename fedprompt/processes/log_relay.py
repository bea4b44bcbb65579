"""Log the output of child processes in their parent, the one process that writes the log files.

Lines of `fedprompt.processes.logs` become the records that they were; the rest is plain text.
"""

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

OnRecord = Callable[[logging.LogRecord], None]
OnText = Callable[[str], None]

_LONGEST = 100_000  # characters of one line; the rest of a longer one is read as another
_TIMEOUT = 5.0  # seconds to log the last lines of a pipe
_END = "end\n"
_FIELDS = {"time", "level", "logger", "message", "error"}
_RESERVED = vars(logging.makeLogRecord({})).keys() | _FIELDS | {"asctime", "taskName"}


def start_relay(stream: IO[str], on_record: OnRecord, on_text: OnText) -> threading.Thread:
    """Relay a process's output on a thread, until every process that writes to it has ended.

    Parameters
    ----------
    stream
        The output; closed at its end.
    on_record
        Receives the log records.
    on_text
        Receives the other lines, without their ends.
    """

    def relay() -> None:
        with stream:
            _relay(stream, "", on_record, on_text)

    thread = threading.Thread(target=relay, name="log-relay", daemon=True)
    thread.start()
    return thread


@contextmanager
def relaying_pipe(path: Path, on_record: OnRecord) -> Iterator[None]:
    """Relay log records that other processes write to a named pipe.

    The pipe is open for writing here too, so that it does not end with one of its writers and no
    writer waits.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    with os.fdopen(os.open(path, os.O_RDWR), encoding="utf-8", errors="replace") as pipe:
        arguments = (pipe, _END, on_record, lambda _: None)
        reader = threading.Thread(target=_relay, args=arguments, name="pipe", daemon=True)
        reader.start()
        try:
            yield
        finally:
            os.write(pipe.fileno(), f"\n{_END}".encode())  # a killed writer leaves half a line
            reader.join(_TIMEOUT)
            path.unlink(missing_ok=True)


def log_record(record: logging.LogRecord) -> None:
    """Log a relayed record under its own logger's name."""
    logging.getLogger(record.name).handle(record)


def parse(line: str) -> logging.LogRecord | None:
    """Return the record that a JSON line describes; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
        message = fields["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    level = logging.getLevelNamesMapping().get(str(fields.get("level")).upper(), logging.INFO)
    error = f"\n{fields['error']}" if fields.get("error") else ""
    record = logging.makeLogRecord(
        {key: value for key, value in fields.items() if key not in _RESERVED}
        | {
            "name": str(fields.get("logger", "")),
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": "%s",
            "args": (f"{message}{error}",),
        }
    )
    record.created = _created(fields.get("time")) or record.created
    return record


def _relay(stream: IO[str], end: str, on_record: OnRecord, on_text: OnText) -> None:
    while (line := stream.readline(_LONGEST)) != end:
        text = line.strip()
        record = parse(text)
        if record is None and text:
            on_text(text)
        elif record is not None and record.getMessage().strip():  # Flower logs blank lines
            on_record(record)


def _created(moment: Any) -> float:
    """Return the seconds since 1970 of an ISO 8601 time; 0 if it is none."""
    try:
        seconds = datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
