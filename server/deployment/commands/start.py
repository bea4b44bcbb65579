"""``flower-server start``: serve the sites until the run is done."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fedprompt.errors import ConfigError
from fedprompt.options import JsonOption, show
from fedprompt.processes import logs
from fedprompt.processes.log_relay import log_record, relaying_pipe
from fedprompt.protocol.address import join
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import section
from fedprompt.settings.server import ServerConfig
from server import outcome
from server.deployment import credentials, single_instance, sites
from server.deployment.commands.folder import FolderArgument
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.superlink_process import is_routine
from server.deployment.supervisor import Supervisor
from server.metrics import serve
from server.simulate import summarise, tell

LOG = "server.jsonl"
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
    place = DeploymentFolder(folder)
    config, settings = place.config(), place.run_settings()
    rounds = section(settings, "server", ServerConfig).rounds
    logs.configure(place.logs / LOG, as_json=json_logs)
    if not config.insecure:
        _check(place, config)
    with ExitStack() as stack:
        held = stack.enter_context(single_instance.exclusive(place.lock))
        if is_done(place):
            _check_rounds(place, rounds)
        else:
            if config.metrics_port:
                server, _ = serve(place.run, place.nodes, port=config.metrics_port)
                stack.callback(server.shutdown)
            _greet(place, config, section(settings, "server", ServerConfig).min_sites)
            stack.enter_context(relaying_pipe(place.pipe, _log_unless_routine))
            Supervisor(place, config, settings, held).run()
    result = summarise(place.run)
    show(result, tell(result, rounds), as_json=json)


def is_done(folder: DeploymentFolder) -> bool:
    """Tell whether the folder's run came to its end before."""
    found = outcome.read(folder.run)
    return found is not None and not found.error


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
    told = credentials.validity(folder, config.dialled)
    if told.fault:
        raise ConfigError(f"{told.fault}; make another with `flower-server renew`")
    if told.warning:
        log.warning("%s; `flower-server renew` makes another", told.warning)


def _greet(folder: DeploymentFolder, config: DeploymentConfig, least: int) -> None:
    enrolled = sum(not site.revoked for site in sites.read(folder.path))
    log.info("listening at %s, %d sites are enrolled", join(config.host, config.port), enrolled)
    if enrolled < least and not config.insecure:
        log.warning(
            "%d sites are enrolled and server.min_sites is %d: enrol more, the server lets them "
            "in while it waits", enrolled, least,
        )  # fmt: skip
