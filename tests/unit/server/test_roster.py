"""Who joins, who is refused, who is asked."""

import time
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import QuorumError
from server import roster as module
from server.exchange import Traffic
from server.local_grid import LocalGrid
from server.roster import Roster, Site, difference
from server.verdict import Reason
from tests.sites import IDENTITY, client


def roster(sites=0):
    found = Roster(IDENTITY)
    found.sites = {i: Site(i, 2**60 - i * 7919, 100) for i in range(sites)}
    return found


def changed(**changes):
    def spoil(message, reply):
        reply["identity"] = ConfigRecord(dict(reply["identity"]) | changes)
        return reply

    return spoil


def joined(sites=4, least=None, **spoilt):
    found = Roster(IDENTITY)
    with LocalGrid(client(**spoilt), sites, {}) as grid:
        found.wait(grid, sites if least is None else least, 5)
    return found


def test_everyone_who_fits_joins_by_partition():
    found = joined()
    assert found.sites[2] == Site(2, 1002, 100)
    assert sorted(found.sites) == [0, 1, 2, 3]
    assert found.refused == {}
    assert found.traffic.up > 0


@pytest.mark.parametrize(
    "changes",
    [{"partition": -1}, {"num-examples": -1}, {"num-examples": 1.5}, {"partition": "0"}],
)
def test_numbers_that_are_none_are_refused(changes):
    found = joined(least=3, query={1: changed(**changes)})
    assert found.refused[1001].reasons == (Reason.BAD_COUNT,)


def test_a_partition_joins_once():
    found = joined(least=3, query={3: changed(partition=0)})
    assert found.sites[0].node == 1000
    assert found.refused[1003].reasons == (Reason.DUPLICATE,)


def test_a_reply_without_identity_is_refused():
    found = joined(least=3, query={1: lambda m, r: RecordDict()})
    assert found.refused[1001].reasons == (Reason.MALFORMED,)


def test_a_site_that_raised_is_asked_again():
    calls = []

    def flaky(message, reply):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("still loading")
        return reply

    found = Roster(IDENTITY)
    with LocalGrid(client(query={1: flaky}), 2, {}) as grid:
        found.refresh(grid, 5)
        assert sorted(found.sites) == [0]
        found.refresh(grid, 5)
    assert sorted(found.sites) == [0, 1]
    assert found.refused == {}


def test_known_sites_are_not_asked_again():
    calls = []

    def count(message, reply):
        calls.append(1)
        return reply

    found = Roster(IDENTITY)
    with LocalGrid(client(query={0: count}), 2, {}) as grid:
        found.refresh(grid, 5)
        found.refresh(grid, 5)
    assert len(calls) == 1


def test_nodes_that_left_are_forgotten():
    found = joined()
    with LocalGrid(client(), 2, {}) as grid:
        found.refresh(grid, 5)
    assert sorted(found.sites) == [0, 1]


def test_waiting_is_not_for_ever():
    began = time.monotonic()
    with (
        LocalGrid(client(), 2, {}) as grid,
        pytest.raises(QuorumError, match="2 of 3 sites joined in time"),
    ):
        Roster(IDENTITY).wait(grid, 3, 0.8)
    assert time.monotonic() - began < 4


def test_waiting_ends_when_everyone_was_refused():
    began = time.monotonic()
    other = client(identity=IDENTITY | {"version": "9"})
    with (
        LocalGrid(other, 2, {}) as grid,
        pytest.raises(QuorumError, match=r"version is 9, the server has 0\.1\.0"),
    ):
        Roster(IDENTITY).wait(grid, 2, 60)
    assert time.monotonic() - began < 5


def test_equal_seeds_ask_equal_sites_whatever_the_node_ids():
    one, other = roster(20), roster(20)
    other.sites = {i: Site(i, 10**9 + i, 100) for i in reversed(range(20))}
    pick = [site.partition for site in one.sample(0.3, "0:1:0")]
    assert pick == [site.partition for site in other.sample(0.3, "0:1:0")] == sorted(pick)
    assert len(pick) == 6
    assert pick != [site.partition for site in one.sample(0.3, "0:2:0")]


@given(st.integers(1, 40), st.floats(0.001, 1.0))
def test_at_least_one_site_and_never_one_twice(sites, share):
    pick = [site.partition for site in roster(sites).sample(share, "s")]
    assert 1 <= len(pick) <= sites
    assert len(set(pick)) == len(pick)


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


def test_a_node_that_keeps_silent_stalls_one_round_only(monkeypatch):
    waited = []

    def hear(grid, contents, kind, seconds):
        waited.append((set(contents), seconds))
        return [], Traffic(0, 0)

    monkeypatch.setattr(module, "exchange", hear)
    found, nodes = Roster(IDENTITY), [1000]
    grid = SimpleNamespace(get_node_ids=lambda: nodes)
    for _ in range(3):
        found.refresh(grid, 600.0)
    nodes.append(1001)
    found.refresh(grid, 600.0)
    assert waited == [({1000}, 600.0), ({1000}, 5.0), ({1000}, 5.0), ({1000, 1001}, 600.0)]
