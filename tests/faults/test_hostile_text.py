"""Text that a site wrote reaches no terminal, page, log or file of the server as it came.

Each place where a site can put text of its own is spoilt in turn; then everything that an operator
looks at is read: the record, the log, the last line, ``status``, the report, the metrics.
"""

import logging

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from prometheus_client import CollectorRegistry, generate_latest

from fedprompt.errors import QuorumError
from fedprompt.processes.logs import CommandFormatter, JsonFormatter, PlainFormatter
from server.deployment.status import lines as status_lines
from server.joining.admission import read_card
from server.rounds.exchange import Answer
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder import run_status
from server.run_folder.metrics import RunCollector
from server.run_folder.report.page import render
from server.run_folder.report.run import read_run
from tests import round_lines
from tests.sites import IDENTITY, client, config, task

SITES, BAD = 3, 1
TEXT = "\x1b]0;PWNED\x07\x1b[2J\x1b[31m \u202e evil\nadmin: all is well\r\u2028\x9b1m" + "y" * 3000


def error(message, reply):
    raise RuntimeError(TEXT)


def extra(name, entry):
    def spoil(message, reply):
        reply[name] = entry
        return reply

    return spoil


def metric(message, reply):
    reply["metrics"] = MetricRecord({**reply["metrics"], TEXT: 1.0})
    return reply


def array_name(message, reply):
    reply["arrays"][TEXT] = reply["arrays"]["ctx.A"]
    return reply


def array_kind(**changes):
    def spoil(message, reply):
        array = reply["arrays"]["ctx.A"]
        told = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype}
        reply["arrays"]["ctx.A"] = Array(**(told | changes), data=array.data)
        return reply

    return spoil


def card(**changes):
    def spoil(message, reply):
        reply["identity"] = ConfigRecord({**reply["identity"], **changes})
        return reply

    return spoil


TRAIN = {
    "error": error,
    "record": extra(TEXT, ConfigRecord()),
    "arrays": extra(TEXT, ArrayRecord()),
    "metric": metric,
    "array's name": array_name,
    "array's dtype": array_kind(dtype=TEXT),
    "array's stype": array_kind(stype=TEXT),
}
EVALUATE = {"error": error, "record": extra(TEXT, ConfigRecord()), "metric": metric}
QUERY = {
    "error": error,
    "version": card(version=TEXT),
    "backbone": card(backbone=TEXT),
    "tokenizer": card(tokenizer=TEXT),
    "classes": card(classes=f'["cat", "{TEXT[:200]!r}"]'),
    "class": card(classes='["cat", "\\u001b[2J\\u202e' + "y" * 3000 + '"]'),
    "no classes": card(classes=TEXT),
    "method": card(method=TEXT),
    "method's setting": card(method='{"method": "\\u001b[2J\\u202e"}'),
    "partition": card(partition=TEXT),
    "images": card(**{"num-examples": TEXT}),
}
PLACES = [
    *[pytest.param({"train": {BAD: s}}, id=f"train: {n}") for n, s in TRAIN.items()],
    *[pytest.param({"evaluate": {BAD: s}}, id=f"evaluate: {n}") for n, s in EVALUATE.items()],
    *[pytest.param({"query": {BAD: s}}, id=f"query: {n}") for n, s in QUERY.items()],
]


@pytest.fixture(autouse=True)
def _plain_flower():
    """Keep Flower's own coloured lines out of what is read."""
    level = logging.getLogger("flwr").level
    logging.getLogger("flwr").setLevel(logging.ERROR)
    yield
    logging.getLogger("flwr").setLevel(level)


def clean(text):
    return all(char.isprintable() or char in "\n\xa0" for char in text)  # our page has both


@pytest.mark.parametrize("spoilt", PLACES)
def test_what_a_site_writes_is_escaped_wherever_it_is_shown(tmp_path, caplog, spoilt):
    chosen = config(tmp_path, rounds=1, quorum=1.0, retries=0)
    ended = None
    with (
        caplog.at_level(logging.DEBUG, "fedprompt"),
        LocalGrid(client(**spoilt), SITES, {}) as grid,
    ):
        try:
            Rounds(grid, task(), chosen, SITES - 1).run()
        except QuorumError as error:
            ended = error
            run_status.write_failure(tmp_path, error)
    assert (ended is None) == ("train" not in spoilt)
    message = found.message if (found := run_status.read(tmp_path)) else ""
    seen = [message]
    for line in round_lines.read(tmp_path):
        verdicts = line.get("refused", []) + line.get("evaluation_verdicts", [])
        seen += [verdict["detail"] for verdict in verdicts]
    assert any(seen)  # the site is named, with what it said
    for entry in caplog.records:
        if entry.name.startswith("fedprompt"):
            forms = (JsonFormatter(), PlainFormatter(), CommandFormatter())
            seen += [entry.getMessage(), *(form.format(entry) for form in forms)]
    registry = CollectorRegistry()
    registry.register(RunCollector(tmp_path))
    seen += [render(read_run(tmp_path)), generate_latest(registry).decode()]
    seen += [status_lines(_status(message))]
    for text in seen:
        assert clean(text), [char for char in text if not clean(char)]
        assert "y" * 600 not in text


def test_a_domain_is_named_as_one_line():
    told = ConfigRecord({**IDENTITY, "partition": 0, "num-examples": 1, "domain": TEXT})
    query = Message(RecordDict(), 1, "query")
    answer = Answer(1, Message(RecordDict({"identity": told}), reply_to=query), 9)
    site, verdict = read_card(answer, IDENTITY, ("ink", "clay"))
    assert site is None
    assert verdict.detail.startswith(r"domain is \x1b]0;PWNED\x07")
    assert clean(verdict.detail)


def test_a_simulated_site_that_raises_is_told_in_printable_lines(caplog):
    """What `fedprompt simulate` writes to the terminal of a site's own error."""
    with LocalGrid(client(query={0: error}), 1, {}) as grid:
        list(
            grid.send_and_receive([Message(RecordDict({"config": ConfigRecord()}), 1000, "query")])
        )
    (entry,) = [entry for entry in caplog.records if entry.name == "server.rounds.local_grid"]
    assert clean(CommandFormatter().format(entry))


def _status(message):
    told = {"running": False, "address": "h:1", "run": "failed", "error": message, "round": 0}
    return told | {"rounds": 1, "accuracy": None, "certificate": None, "sites": []}
