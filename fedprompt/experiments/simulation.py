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
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import check_vacant
from server.rounds.loop import log as rounds_log
from server.rounds.progress import Display, LineDisplay, LogFeed, display
from server.rounds.ray_engine import run_ray


def simulate(
    config: RunConfig, engine: Literal["local", "ray"], output: Path | None, *, resume: bool
) -> tuple[Path, int]:
    """Tune a prompt over simulated sites, showing its rounds; return its folder and their number.

    Both engines run the same ServerApp and ClientApp and end in the same bytes at one seed.

    Parameters
    ----------
    config
        Of the run.
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
    folder = (output or Path(config.server.output)).resolve()
    own: Flat = {
        "server.output": str(folder),
        "server.resume": resume or config.server.resume,
    }
    config = queued(config.override(own))
    check_vacant(config.server)
    site_sizes(
        config.data, config.data.clients
    )  # refuses what no site could load, before one starts
    run = run_local if engine == "local" else run_ray
    with display(config.server.rounds, Console(stderr=True)) as shown:
        run(config, shown)
    return folder, config.server.rounds


def queued(config: RunConfig) -> RunConfig:
    """Return a simulation's settings: sites run one after the other, so deadlines add up."""
    sites, server = config.data.clients, config.server
    return config.override(
        {
            "server.deadline": server.deadline * sites,
            "server.join_deadline": server.join_deadline * sites,
        }
    )


def run_local(config: RunConfig, shown: Display) -> None:
    """Run server and sites in this process.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    from client.app import app as client_app  # torch: Ray's processes load their own
    from server.app import app as server_app

    settings, sites, workers = config.flat(), config.data.clients, config.server.workers
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with feeding(shown), LocalGrid(client_app, sites, settings, workers) as grid:
        server_app(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))


def federate(config: RunConfig) -> list[RoundRecord]:
    """Run a federation in this process, showing nothing, and return the record of its rounds.

    Its artefact is then in ``server.output``.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    run_local(queued(config), LineDisplay(config.server.rounds, Console(quiet=True)))
    return RunFolder(Path(config.server.output)).records()


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
