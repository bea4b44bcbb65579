"""Run the SuperLink as a child process, from its first answer to the end of its last descendant."""

import logging
import logging.handlers
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from fedprompt.errors import FedpromptError, StorageError
from fedprompt.processes import logs, parent_watchdog
from fedprompt.processes.child import Child
from fedprompt.processes.log_relay import log_record
from fedprompt.protocol.address import is_answering
from fedprompt.text import printable
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.single_instance import end_children
from server.rounds.flower_cli import environment

FLOWER_LOG = "flower.log"
_LOG_BYTES, _LOG_BACKUPS = 10_000_000, 3
_START_TIMEOUT = 120.0  # seconds until its first answer
_GRACE = 10.0  # seconds it may take to end
_LINGER = 2.0  # seconds its descendants may take then; what counts is committed by rename
_POLL = 0.2  # seconds between two attempts to reach it
_TAIL = 500  # characters of Flower's log in error messages
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Flower colours its levels


class SuperLinkProcess:
    """A SuperLink that answers.

    Log records go into this process's log, other output and Flower's routine into Flower's own.

    Parameters
    ----------
    folder, config
        The deployment.
    lock
        The open lock file, which each of the SuperLink's processes inherits as standard input.

    Raises
    ------
    FedpromptError
        It did not start; the message quotes the end of its log.
    """

    def __init__(self, folder: DeploymentFolder, config: DeploymentConfig, lock: IO[str]) -> None:
        self._log, self._lock = folder.logs / FLOWER_LOG, folder.lock
        self._flower_log = _rotating_log(self._log)
        self._is_stopping = False
        module = [sys.executable, "-m", "server.deployment.superlink"]
        command = [*module, str(folder.path.resolve()), str(os.getpid())]
        # the ServerApp reads both variables
        variables = {logs.PIPE: str(folder.pipe.resolve()), parent_watchdog.PARENT: "1"}
        env = environment(folder.flower) | variables
        self._child = Child(command, env, self._log_record, self._log_text, stdin=lock)
        try:
            self._await_answer(config.control_port)
        except BaseException:
            self.end()
            raise

    @property
    def last_output(self) -> str:
        """Return the end of Flower's log, for error messages."""
        with suppress(OSError):
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
            return f"The end of Flower's log: {' '.join(tail.split()) or 'empty'}"
        return "Flower wrote no log"

    @property
    def exit_code(self) -> int | None:
        """Return the SuperLink's exit code; None while it runs."""
        ended = self._child.poll()
        return ended.code if ended else None

    def expect_end(self) -> None:
        """Treat Flower's complaints as routine from now on: the run is being stopped."""
        self._is_stopping = True

    def end(self) -> None:
        """End the SuperLink and every process it started, by force if necessary."""
        self.expect_end()
        self._child.end(_GRACE)
        end_children(self._lock, _LINGER)
        self._child.close(_GRACE)
        self._flower_log.close()

    def _await_answer(self, port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline and self.exit_code is None:
            if is_answering(port):
                return
            time.sleep(_POLL)
        self._child.close(1.0)
        raise FedpromptError(f"Flower's SuperLink did not start. {self.last_output}")

    def _log_record(self, record: logging.LogRecord) -> None:
        if is_routine(record) or (record.name == "flwr" and self._is_stopping):
            self._log_text(record.getMessage())
        else:
            log_record(record)

    def _log_text(self, text: str) -> None:
        line = printable(_COLOUR.sub("", text))
        self._flower_log.handle(logging.makeLogRecord({"msg": line}))


def is_routine(record: logging.LogRecord) -> bool:
    """Return whether a record is Flower's and below a warning."""
    return record.name == "flwr" and record.levelno < logging.WARNING


def _rotating_log(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=_LOG_BACKUPS, encoding="utf-8"
        )
    except OSError as error:
        raise StorageError(f"the log {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
