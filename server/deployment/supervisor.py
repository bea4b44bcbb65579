"""Keep a deployment's run going until it is over: through dead SuperLinks and vanished ServerApps.

Whatever went wrong without a word, the cure is one: end every process of that life, start the
SuperLink again and submit the run again, which goes on after the last committed round.
"""

import logging
import time
from contextlib import suppress
from typing import IO

from fedprompt.errors import FedpromptError, StorageError
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat
from server import outcome
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.link import FLOWER_LOG, Link
from server.flower_cli import FlowerCli, write_app

_PAUSE = 0.5  # seconds between two looks at the run's folder
_LOOK = 15.0  # seconds between two questions to Flower, which cost a process each
_BACKOFF = (1.0, 60.0)  # seconds before a life that follows a failed one: the first, the longest
_BRIEFLY = 10.0  # seconds that stopping a run may take when the server leaves

log = logging.getLogger("fedprompt.server")


class Supervisor:
    """Hold one deployment's run.

    Parameters
    ----------
    folder, config
        The deployment.
    settings
        Of the run.
    lock
        The open lock file, see `server.deployment.single_instance`.
    """

    def __init__(
        self, folder: DeploymentFolder, config: DeploymentConfig, settings: Flat, lock: IO[str]
    ) -> None:
        self.folder, self.config, self.lock = folder, config, lock
        self.app = write_app(folder.path / "app", settings | {"server.resume": True})
        certificate = None if config.insecure else folder.ca_certificate.resolve()
        address = f"127.0.0.1:{config.control_port}"
        self.flower = FlowerCli(folder.flower.resolve(), address, certificate)
        self.flower.connect()

    def run(self) -> None:
        """Run until the run is done.

        Raises
        ------
        FedpromptError
            What ended the run, of the same kind as in its own process; or that it ended too often
            without a new round, and why it did the last time.
        """
        failed, reached = 0, self._reached()
        while True:
            outcome.clear(self.folder.run)
            complaint = self._live()
            if (ended := outcome.read(self.folder.run)) is not None:
                if not ended.crashed:
                    outcome.raise_failure(self.folder.run)
                    return
                complaint = f"the ServerApp ended with {ended.message}"
            failed = 1 if self._reached() > reached else failed + 1
            reached = self._reached()
            if failed > self.config.restarts:
                error = FedpromptError(
                    f"the run ended {failed} times without a new round after round {reached}; "
                    f"last: {complaint}. {self.folder.logs / FLOWER_LOG} says more"
                )
                with suppress(StorageError):  # a full disk must not hide what ended the run
                    outcome.write_failure(self.folder.run, error)
                raise error
            pause = min(_BACKOFF[0] * 2 ** (failed - 1), _BACKOFF[1])
            log.warning(
                "%s; starting again in %.0f s after round %d", complaint, pause, reached,
                extra={"event": "restart", "try": failed},
            )  # fmt: skip
            time.sleep(pause)

    def _live(self) -> str:
        """Run one life of the SuperLink; return why it ended unless the outcome tells."""
        try:
            link = Link(self.folder, self.config, self.lock)
        except FedpromptError as error:
            return str(error)
        run = None
        try:
            for stale in self.flower.unfinished():
                log.info("stopping run %s of an earlier life", stale)
                self.flower.stop(stale)
            run = self.flower.submit(self.app)
            reached = self._reached()
            how = f"goes on after round {reached}" if reached >= 0 else "begins"
            log.info("run %s %s", run, how)
            return self._follow(link, run)
        except FedpromptError as error:  # Flower's command line could not reach the SuperLink
            return str(error)
        finally:
            self._leave(link, run)

    def _follow(self, link: Link, run: str) -> str:
        """Wait for the end of a run; return why it ended, if it does not say so itself."""
        asked = time.monotonic()
        while outcome.read(self.folder.run) is None:
            if not link.lives():
                return f"the SuperLink ended with code {link.process.returncode}. {link.words}"
            if time.monotonic() - asked > _LOOK:
                status, asked = self.flower.status(run), time.monotonic()
                if status.startswith("finished") and outcome.read(self.folder.run) is None:
                    return (
                        f"Flower says of the run: {status}; the ServerApp left no word: it was "
                        f"ended from outside, perhaps for want of memory. {link.words}"
                    )
            time.sleep(_PAUSE)
        return "the run is over"

    def _leave(self, link: Link, run: str | None) -> None:
        """Stop the run, so that sites do not work for nobody, and end every process."""
        try:
            if run and link.lives() and outcome.read(self.folder.run) is None:
                link.leave()
                brief = FlowerCli(
                    self.flower.home, self.flower.address, self.flower.certificate, _BRIEFLY
                )
                brief.stop(run)
        except FedpromptError as error:
            log.debug("the run could not be stopped: %s", error)
        finally:
            link.end()

    def _reached(self) -> int:
        last = RunFolder(self.folder.run).last()
        return last.round if last else -1
