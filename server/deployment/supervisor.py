"""``flower-server start``: keep a deployment's run going until it is done.

SuperLinks die and ServerApps are lost. Whatever failed silently, the remedy is the same: end every
process, start the SuperLink again and submit the run again, which continues after the last
committed round.
"""

import logging
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Annotated

import typer

from fedprompt.errors import ConfigError, FedpromptError, StorageError
from fedprompt.options import JsonOption, show
from fedprompt.processes import logs
from fedprompt.processes.log_relay import log_record, relaying_pipe
from fedprompt.protocol.address import join
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat, section
from fedprompt.settings.server import ServerConfig
from server.deployment import credentials, single_instance, sites
from server.deployment.command import FolderArgument
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.superlink_process import FLOWER_LOG, SuperLinkProcess, is_routine
from server.rounds.flower_cli import FlowerCli, write_app
from server.run_folder import run_status
from server.run_folder.metrics import serve
from server.run_folder.summary import summarise, tell

_LOG = "server.jsonl"
_POLL = 0.5  # seconds between two looks at the run's folder
_ASK_FLOWER = 15.0  # seconds between two questions to Flower, which start a process each
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a SuperLink is started again
_STOP_TIMEOUT = 10.0  # seconds that stopping a run may take when the server ends

log = logging.getLogger("fedprompt.server")


def start(
    folder: FolderArgument = Path(),
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="JSON lines on standard error too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Serve the sites until the run is done; killed at any moment, it goes on when started again.

    The run's folder is FOLDER/run: rounds.jsonl, checkpoints, artefact. Logs are in FOLDER/logs.
    """
    deployment = DeploymentFolder(folder)
    config, settings = deployment.config(), deployment.run_settings()
    rounds = section(settings, "server", ServerConfig).rounds
    logs.configure(deployment.logs / _LOG, as_json=json_logs)
    if not config.insecure:
        _check(deployment, config)
    with ExitStack() as stack:
        lock = stack.enter_context(single_instance.exclusive(deployment.lock))
        if is_done(deployment):
            _check_rounds(deployment, rounds)
        else:
            if config.metrics_port:
                server, _ = serve(deployment.run, deployment.nodes, port=config.metrics_port)
                stack.callback(server.shutdown)
            _greet(deployment, config, section(settings, "server", ServerConfig).min_sites)
            stack.enter_context(relaying_pipe(deployment.pipe, _log_unless_routine))
            Supervisor(deployment, config, settings, lock).run()
    result = summarise(deployment.run)
    show(result, tell(result, rounds), as_json=json)


def is_done(folder: DeploymentFolder) -> bool:
    """Return whether the folder's run was completed before."""
    ended = run_status.read(folder.run)
    return ended is not None and not ended.error


def _log_unless_routine(record: logging.LogRecord) -> None:
    if not is_routine(record):
        log_record(record)


def _check_rounds(folder: DeploymentFolder, wanted: int) -> None:
    """Refuse to call a run done that has fewer rounds than the settings ask for now."""
    last = RunFolder(folder.run).last()
    reached = last.round if last else 0
    if reached < wanted:
        raise ConfigError(
            f"{folder.run} holds a run that is done after {reached} rounds, server.rounds is now "
            f"{wanted}: the learning rate was planned for {reached}. Move the folder away to begin "
            f"another run with the same sites, or set server.rounds = {reached}"
        )


def _check(folder: DeploymentFolder, config: DeploymentConfig) -> None:
    """Refuse certificates that sites would refuse."""
    credentials.check(folder)
    validity = credentials.validity(folder, config.dialled)
    if validity.fault:
        raise ConfigError(f"{validity.fault}; make another with `flower-server renew`")
    if validity.warning:
        log.warning("%s; `flower-server renew` makes another", validity.warning)


def _greet(folder: DeploymentFolder, config: DeploymentConfig, least: int) -> None:
    enrolled = sum(not site.revoked for site in sites.read(folder.path))
    log.info("listening at %s, %d sites are enrolled", join(config.host, config.port), enrolled)
    if enrolled < least and not config.insecure:
        log.warning(
            "%d sites are enrolled and server.min_sites is %d: enrol more, the server lets them "
            "in while it waits", enrolled, least,
        )  # fmt: skip


class Supervisor:
    """Run one deployment's run, across any number of SuperLinks.

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
            The error that ended the run, of the same kind as in its own process; or that the run
            ended too often without a new round, with the last reason.
        """
        failures, reached = 0, self._last_round()
        while True:
            run_status.clear(self.folder.run)
            reason = self._run_superlink()
            if (ended := run_status.read(self.folder.run)) is not None:
                if not ended.crashed:
                    run_status.raise_failure(self.folder.run)
                    return
                reason = f"the ServerApp ended with {ended.message}"
            failures = 1 if self._last_round() > reached else failures + 1
            reached = self._last_round()
            if failures > self.config.restarts:
                error = FedpromptError(
                    f"the run ended {failures} times without a new round after round {reached}; "
                    f"last: {reason}. {self.folder.logs / FLOWER_LOG} says more"
                )
                with suppress(StorageError):  # a full disk must not hide the reason
                    run_status.write_failure(self.folder.run, error)
                raise error
            pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
            log.warning(
                "%s; starting again in %.0f s after round %d", reason, pause, reached,
                extra={"event": "restart", "try": failures},
            )  # fmt: skip
            time.sleep(pause)

    def _run_superlink(self) -> str:
        """Run one SuperLink until it or the run ends; return the reason unless the outcome does."""
        try:
            superlink = SuperLinkProcess(self.folder, self.config, self.lock)
        except FedpromptError as error:
            return str(error)
        run = None
        try:
            for stale in self.flower.unfinished():
                log.info("stopping run %s of an earlier SuperLink", stale)
                self.flower.stop(stale)
            run = self.flower.submit(self.app)
            reached = self._last_round()
            state = f"continues after round {reached}" if reached >= 0 else "starts"
            log.info("run %s %s", run, state)
            return self._await_end(superlink, run)
        except FedpromptError as error:  # Flower's command line could not reach the SuperLink
            return str(error)
        finally:
            self._end(superlink, run)

    def _await_end(self, superlink: SuperLinkProcess, run: str) -> str:
        """Wait for the end of a run; return its reason, in case the run left no outcome."""
        asked = time.monotonic()
        while run_status.read(self.folder.run) is None:
            if (code := superlink.exit_code) is not None:
                return f"the SuperLink ended with code {code}. {superlink.last_output}"
            if time.monotonic() - asked > _ASK_FLOWER:
                status, asked = self.flower.status(run), time.monotonic()
                if status.startswith("finished") and run_status.read(self.folder.run) is None:
                    return (
                        f"Flower reports the run as {status}, but the ServerApp left no outcome: "
                        f"it was killed, perhaps for lack of memory. {superlink.last_output}"
                    )
            time.sleep(_POLL)
        return "the run is over"

    def _end(self, superlink: SuperLinkProcess, run: str | None) -> None:
        """Stop the run, so that sites do not work in vain, and end every process."""
        try:
            if run and superlink.exit_code is None and run_status.read(self.folder.run) is None:
                superlink.expect_end()
                flower = self.flower
                FlowerCli(flower.home, flower.address, flower.certificate, _STOP_TIMEOUT).stop(run)
        except FedpromptError as error:
            log.debug("the run could not be stopped: %s", error)
        finally:
            superlink.end()

    def _last_round(self) -> int:
        last = RunFolder(self.folder.run).last()
        return last.round if last else -1
