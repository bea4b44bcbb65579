"""Simulate a federation: the server and all sites on one machine, or on a Ray cluster."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from flwr.app import Context, RecordDict
from rich.console import Console

from fedprompt.data.load import site_sizes
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import defaults, section
from fedprompt.settings.section import Flat
from fedprompt.settings.server import ServerConfig
from server.local_grid import LocalGrid
from server.progress import Display, LineDisplay, LogFeed, display
from server.ray_engine import run_ray
from server.rounds import check_vacant
from server.rounds import log as rounds_log


def simulate(
    given: Flat, engine: Literal["local", "ray"], output: Path | None, *, resume: bool
) -> tuple[Path, int]:
    """Tune a prompt over simulated sites, showing its rounds; return its folder and their number.

    Both engines run the same ServerApp and ClientApp and end in the same bytes at one seed.

    Parameters
    ----------
    given
        Settings that differ from the defaults.
    engine
        In this process, or Flower's Ray engine.
    output
        Of the run; None = ``server.output``.
    resume
        Continue after the last committed round.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    settings = defaults() | given
    folder = (output or Path(section(settings, "server", ServerConfig).output)).resolve()
    settings["server.output"] = str(folder)
    settings["server.resume"] = resume or bool(settings["server.resume"])
    settings |= queued(settings)
    server = section(settings, "server", ServerConfig)
    check_vacant(server)
    data = section(settings, "data", DataConfig)
    site_sizes(data, data.clients)  # refuses what no site could load, before one starts
    run = run_local if engine == "local" else run_ray
    with display(server.rounds, Console(stderr=True)) as shown:
        run(settings, shown)
    return folder, server.rounds


def queued(settings: Flat) -> Flat:
    """Return a simulation's deadlines: sites run one after the other, so their times add up."""
    sites = section(settings, "data", DataConfig).clients
    server = section(settings, "server", ServerConfig)
    return {
        "server.deadline": server.deadline * sites,
        "server.join_deadline": server.join_deadline * sites,
    }


def run_local(settings: Flat, shown: Display) -> None:
    """Run server and sites in this process.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    from client.app import app as client_app  # torch: Ray's processes load their own
    from server.app import app as server_app

    sites = section(settings, "data", DataConfig).clients
    workers = section(settings, "server", ServerConfig).workers
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with feeding(shown), LocalGrid(client_app, sites, settings, workers) as grid:
        server_app(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))


def federate(settings: Flat) -> list[RoundRecord]:
    """Run a federation in this process, showing nothing, and return the record of its rounds.

    Its artefact is then in ``server.output``.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    settings = settings | queued(settings)
    server = section(settings, "server", ServerConfig)
    run_local(settings, LineDisplay(server.rounds, Console(quiet=True)))
    return RunFolder(Path(server.output)).records()


@contextmanager
def feeding(shown: Display) -> Iterator[None]:
    """Send the log of the round loop to a display, and nowhere else."""
    feed, level, propagate = LogFeed(shown), rounds_log.level, rounds_log.propagate
    rounds_log.addHandler(feed)
    rounds_log.setLevel(logging.DEBUG)
    rounds_log.propagate = False
    try:
        yield
    finally:
        rounds_log.removeHandler(feed)
        rounds_log.setLevel(level)
        rounds_log.propagate = propagate
