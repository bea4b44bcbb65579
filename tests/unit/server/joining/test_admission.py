import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from server.gate.verdict import Reason
from server.joining.admission import Site, difference, read_card
from server.rounds.exchange import Answer
from server.rounds.local_grid import LocalGrid
from tests.sites import IDENTITY, client


@pytest.fixture(autouse=True)
def run():
    """Let Flower know of a run, without which it makes no message."""
    with LocalGrid(client(), 0, {}):
        yield


def answer(**card: object) -> Answer:
    """Return what node 1000 says of itself."""
    mine = {**IDENTITY, "partition": 2, "num-examples": 30, **card}
    message = Message(RecordDict({"identity": ConfigRecord(mine)}), 1, "query")
    return Answer(1000, message, 500)


def test_a_card_that_fits_is_a_site() -> None:
    assert read_card(answer(), IDENTITY, ()) == (Site(2, 1000, 30), None)


def test_a_domain_counts_where_the_run_has_domains() -> None:
    assert read_card(answer(domain="ink"), IDENTITY, ()) == (Site(2, 1000, 30), None)
    expected = Site(2, 1000, 30, domain="ink")
    assert read_card(answer(domain="ink"), IDENTITY, ("ink", "clay")) == (expected, None)


@pytest.mark.parametrize(("card", "shown"), [({}, "is ,"), ({"domain": "oil"}, "is oil,")])
def test_a_site_of_no_known_domain_is_refused(card: dict, shown: str) -> None:
    site, verdict = read_card(answer(**card), IDENTITY, ("ink", "clay"))
    assert site is None
    assert verdict is not None
    assert verdict.reasons == (Reason.IDENTITY,)
    assert verdict.detail == f"domain {shown} the server has ink, clay"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"version": "2"}, "version is 2, the server has 0.1.0"),
        ({"method": "coop"}, "method is coop, the server has dip"),
        ({"classes": '["cat","mouse"]'}, "class 1 is 'mouse', the server has 'dog'"),
        ({"classes": '["cat","dog","eel"]'}, "3 classes, the server has 2"),
        ({"classes": "cat, dog"}, "classes are not a JSON list, the server has 2"),
        ({"classes": 7}, "classes are not a JSON list, the server has 2"),
    ],
)
def test_difference_shows_both_sides(changes, told):
    assert difference(IDENTITY, IDENTITY | changes) == told


def test_difference_names_a_missing_field():
    assert difference(IDENTITY, {}).startswith("version is None")
