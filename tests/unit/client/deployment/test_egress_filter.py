import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from client.deployment.egress_filter import release
from client.deployment.policy import Policy
from fedprompt.errors import PolicyError
from fedprompt.wire import ARRAYS, IDENTITY, METRICS
from server.rounds.local_grid import LocalGrid
from tests.sites import IDENTITY as CARD
from tests.sites import client

CLASSES = ("cat", "dog")
OPEN = Policy(metrics=frozenset({"num-examples", "loss", "correct"}))


@pytest.fixture(autouse=True)
def run():
    """Let Flower know of a run, without which it makes no message."""
    with LocalGrid(client(), 0, {}):
        yield


def answer(**parts: object) -> Message:
    return Message(RecordDict(dict(parts)), 1, "query")  # type: ignore[arg-type]


def card(**more: object) -> Message:
    return answer(**{IDENTITY: ConfigRecord({**CARD, "partition": 0, "num-examples": 30, **more})})


def metrics(**values: float) -> Message:
    return answer(**{METRICS: MetricRecord({"receipt": 7, **values})})


@pytest.mark.parametrize("more", [{}, {"domain": "scanner a"}])
def test_an_identity_may_name_its_domain(more: dict[str, str]) -> None:
    message = card(**more)
    release(message, "query", OPEN, CLASSES)
    assert message.content.config_records[IDENTITY]["num-examples"] == 30


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"patients": "Smith"}, "unknown or missing fields"),
        ({"classes": '["cat","Smith"]'}, "not the list that was agreed on"),
    ],
)
def test_an_identity_with_more_in_it_stays(more: dict[str, str], told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        release(card(**more), "query", OPEN, CLASSES)


def test_withheld_numbers_are_taken_out() -> None:
    closed = Policy(metrics=frozenset())
    joined = card()
    release(joined, "query", closed, CLASSES)
    assert joined.content.config_records[IDENTITY]["num-examples"] == 1
    scored = metrics(**{"num-examples": 9, "correct": 5, "loss": 0.5})
    release(scored, "evaluate", closed, CLASSES)
    found = dict(scored.content.metric_records[METRICS])
    assert found == {"num-examples": 0, "correct": 0, "loss": 0.0, "receipt": 7}


@pytest.mark.parametrize(
    "message",
    [
        lambda: metrics(**{"num-examples": 9, "correct": 5, "loss": float("nan")}),
        lambda: metrics(**{"num-examples": 9, "correct": 5, "loss": 0.5, "age": 70.0}),
        lambda: answer(**{METRICS: MetricRecord({"receipt": 7}), ARRAYS: ArrayRecord()}),
    ],
)
def test_an_evaluation_with_anything_else_in_it_stays(message) -> None:
    with pytest.raises(PolicyError):
        release(message(), "evaluate", OPEN, CLASSES)
