"""The parts of a simulation; whole runs are in tests/integration."""

import logging

from rich.console import Console

from fedprompt.experiments.simulation import feeding, queued
from fedprompt.settings.run_config import RunConfig
from server.rounds.loop import log
from server.rounds.progress import LineDisplay


def test_deadlines_of_sites_that_wait_for_each_other_add_up():
    simulated = queued(RunConfig.parse({"data.clients": 7, "server.deadline": 2.0}))
    server = simulated.server
    assert (server.deadline, server.join_deadline) == (14.0, 4200.0)


def test_feeding_leaves_the_logger_as_it_was():
    before = (log.level, log.propagate, list(log.handlers))
    with feeding(LineDisplay(1, Console(stderr=True))):
        assert log.level == logging.DEBUG
    assert (log.level, log.propagate, list(log.handlers)) == before
