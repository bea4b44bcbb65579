"""``flower-client start``: take part until told to stop."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from client.deployment import surroundings
from client.deployment.site_folder import SiteFolder
from client.deployment.supervisor import Supervisor
from fedprompt.processes import logs

FolderArgument = Annotated[Path, typer.Argument(help="The site's folder, as `join` made it.")]
_log = logging.getLogger("client.deployment")


def start(folder: FolderArgument) -> None:
    """Take part until told to stop; SIGTERM and Ctrl-C end everything within seconds, exit code 0.

    Whatever dies is started again, and the server may be away for days. A site whose key the server
    refuses asks ever more seldom and gives up after node.patience seconds, exit code 16.
    """
    take_part(SiteFolder(folder))


def take_part(folder: SiteFolder) -> None:
    """Run a site's processes until SIGTERM or SIGINT.

    Raises
    ------
    FedpromptError
        As `Supervisor.run` and `surroundings.alone`.
    """
    supervisor = Supervisor(folder)
    with surroundings.alone(folder), _stop_signals() as stopped:
        _silence_others()
        logs.configure(folder.logs / "client.jsonl", as_json=not sys.stderr.isatty())
        node = folder.node()
        told = {"event": "start", "site": node.name}
        _log.info("site %s takes part with %s", node.name or "(no name)", node.server, extra=told)
        supervisor.run(stopped)
        _log.info("stopped", extra={"event": "stop"})


def _silence_others() -> None:
    """Take down what open_clip puts up by logging without a logger: lines would come twice."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set an event on SIGTERM and SIGINT, which are no errors of a service."""
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
