"""Run the SuperLink as a child: one life of it, from the first answer to the last process's end."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO

from fedprompt.errors import FedpromptError
from fedprompt.processes import logs, parent_watchdog
from server.deployment.chatter import Chatter
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.single_instance import end_children
from server.flower_cli import answers, environment

FLOWER_LOG = "flower.log"
_START = 120.0  # seconds the SuperLink may take to answer
_GRACE = 10.0  # seconds it may take to end
_LINGER = 2.0  # seconds its children may take then; what counts is committed by rename
_PAUSE = 0.2
_TAIL = 500  # characters of Flower's log that are told


class Link:
    """Start a SuperLink and wait until it answers.

    Parameters
    ----------
    folder, config
        The deployment.
    lock
        The open lock file; every process of this life holds it.

    Raises
    ------
    FedpromptError
        It did not start; its last words are told.
    """

    def __init__(self, folder: DeploymentFolder, config: DeploymentConfig, lock: IO[str]) -> None:
        self._log, self._lock = folder.logs / FLOWER_LOG, folder.lock
        command = [sys.executable, "-m", "server.deployment.superlink"]
        told = {
            logs.PIPE: str(folder.pipe.resolve()),
            parent_watchdog.PARENT: "1",
        }  # read by the ServerApp
        self.process = subprocess.Popen(
            [*command, str(folder.path.resolve()), str(os.getpid())],
            env=environment(folder.flower) | told,
            stdin=lock,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the supervisor alone
        )
        self._chatter = Chatter(self.process, self._log)
        try:
            self._await(config.control_port)
        except BaseException:
            self.end()
            raise

    @property
    def words(self) -> str:
        """Return the end of what Flower's processes wrote."""
        with suppress(OSError):
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
            return f"Flower's last words: {' '.join(tail.split()) or 'none'}"
        return "Flower wrote no log"

    def leave(self) -> None:
        """Expect the end from now on."""
        self._chatter.leaving = True

    def lives(self) -> bool:
        """Tell whether the SuperLink is running."""
        return self.process.poll() is None

    def end(self) -> None:
        """Stop it and every process it started: kindly at first, then by force."""
        self.leave()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        self.process.kill()
        self.process.wait()
        end_children(self._lock, _LINGER)
        self._chatter.join(_GRACE)

    def _await(self, port: int) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end and self.lives():
            if answers(port):
                return
            time.sleep(_PAUSE)
        self._chatter.join(1.0)
        raise FedpromptError(f"Flower's SuperLink did not start. {self.words}")
