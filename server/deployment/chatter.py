"""Sort what a server's children write: our log lines into our log, Flower's own into a file.

One process writes each file, so that they can be rotated. A child whose reader is gone is going
itself: it watches this process.
"""

import io
import json
import logging
import logging.handlers
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fedprompt.errors import StorageError
from fedprompt.text import printable

_BYTES, _BACKUPS = 10_000_000, 3
_LINE = 100_000  # characters of one line; the rest of a longer one is read as another
_PATIENCE = 5.0  # seconds to log what is still in the pipe
_END = "end\n"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Flower writes its levels in colour
_LEVELS = logging.getLevelNamesMapping()
_RESERVED = vars(logging.makeLogRecord({})).keys() | {"message", "time", "level", "logger", "error"}


class Chatter:
    """Read a child's output on a thread until every process that has it is gone.

    ``leaving`` is set once the child was told to end: what Flower complains of then is no fault.
    """

    def __init__(self, child: "subprocess.Popen[str]", path: Path) -> None:
        self.leaving = False
        self._stream: IO[str] = child.stdout or io.StringIO()
        self._flower = _open(path)
        self._thread = threading.Thread(target=self._read, daemon=True, name="chatter")
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the output; say whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _read(self) -> None:
        with self._stream:
            while text := self._stream.readline(_LINE):
                told = record(text)
                if told is not None and not self._is_flowers(told):
                    logging.getLogger(told.name).handle(told)
                elif text.strip():
                    line = printable(_COLOUR.sub("", text.rstrip()))
                    self._flower.handle(logging.makeLogRecord({"msg": line}))
        self._flower.close()

    def _is_flowers(self, told: logging.LogRecord) -> bool:
        """Tell whether a record is of no interest outside Flower's own log."""
        return told.name == "flwr" and (self.leaving or told.levelno < logging.WARNING)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Log what comes through a named pipe.

    It is open for writing here too: so no writer's end is the end of the pipe, and nobody waits.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    with os.fdopen(os.open(path, os.O_RDWR), encoding="utf-8", errors="replace") as pipe:
        reader = threading.Thread(target=_log_all, args=(pipe,), daemon=True, name="pipe")
        reader.start()
        try:
            yield
        finally:
            os.write(pipe.fileno(), f"\n{_END}".encode())  # a killed writer leaves half a line
            reader.join(_PATIENCE)
            path.unlink(missing_ok=True)


def _log_all(pipe: IO[str]) -> None:
    while (text := pipe.readline(_LINE)) != _END:
        told = record(text)
        if told is not None and (told.name != "flwr" or told.levelno >= logging.WARNING):
            logging.getLogger(told.name).handle(told)


def record(text: str) -> logging.LogRecord | None:
    """Return the log record that a line of `JsonFormatter` tells; None for any other."""
    if not text.startswith("{"):
        return None
    try:
        told = json.loads(text)
        level, name, message = _LEVELS[told["level"].upper()], str(told["logger"]), told["message"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    values: dict[str, Any] = {k: v for k, v in told.items() if k not in _RESERVED}
    if "error" in told:
        message = f"{message}\n{told['error']}"
    values |= {"name": name, "levelno": level, "levelname": logging.getLevelName(level)}
    return logging.makeLogRecord(values | {"msg": str(message), "args": ()})


def _open(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_BYTES, backupCount=_BACKUPS, encoding="utf-8"
        )
    except OSError as error:
        raise StorageError(f"the log {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
