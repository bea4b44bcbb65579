"""Who joins, who is refused, who is asked."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import QuorumError
from server.gate.verdict import Reason
from server.joining import roster as module
from server.joining.admission import Site
from server.joining.enrolment import Enrolment
from server.joining.roster import Roster
from server.rounds.exchange import Traffic, exchange
from server.rounds.local_grid import LocalGrid
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
    with (
        LocalGrid(client(), 2, {}) as grid,
        pytest.raises(QuorumError, match="2 of 3 sites joined in time"),
    ):
        Roster(IDENTITY).wait(grid, 3, 5.0)


def test_waiting_ends_when_everyone_was_refused():
    other = client(identity=IDENTITY | {"version": "9"})
    with (
        LocalGrid(other, 2, {}) as grid,
        pytest.raises(QuorumError, match=r"version is 9, the server has 0\.1\.0"),
    ):
        Roster(IDENTITY).wait(grid, 2, float("inf"))


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
    first, later = ({1000}, 600.0), ({1000}, 5.0)
    assert waited == [first, later, later, ({1001}, 600.0), later]


def test_a_silent_node_stalls_no_round_beside_a_refused_one_or_when_it_was_away(monkeypatch):
    """A refused node is asked in every round, and answers at once; that is no reason to wait."""
    waited = []

    def hear(grid, contents, kind, seconds):
        waited.append((set(contents), seconds))
        answers, traffic = exchange(grid, contents, kind, 5)
        return [answer for answer in answers if answer.node != 1000], traffic

    monkeypatch.setattr(module, "exchange", hear)
    found = Roster(IDENTITY)
    with LocalGrid(client(query={1: changed(version="9")}), 2, {}) as grid:
        found.refresh(grid, 600.0)
        found.refresh(grid, 600.0)
        monkeypatch.setattr(grid, "get_node_ids", lambda: [1001])
        found.refresh(grid, 600.0)
        monkeypatch.undo()
        monkeypatch.setattr(module, "exchange", hear)
        found.refresh(grid, 600.0)
    refused, silent = ({1001}, 600.0), ({1000}, 5.0)
    assert waited == [({1000, 1001}, 600.0), refused, silent, refused, refused, silent]


def test_a_refused_site_does_not_end_the_wait_for_other_enrolled_ones(monkeypatch):
    listed = enrolled(n1000=Enrolment(0, "a", 0), n1001=Enrolment(1, "b", 0))
    found, looks = Roster(IDENTITY, listed), []
    with LocalGrid(client(query={1: changed(version="9")}), 2, {}) as grid:
        everyone = grid.get_node_ids()
        monkeypatch.setattr(grid, "get_node_ids", lambda: looks.append(0) or everyone)
        with pytest.raises(QuorumError, match="1 of 2 sites joined in time"):
            found.wait(grid, 2, 1.2)
    assert len(looks) > 2  # it went on looking


def test_a_refused_site_that_was_mended_joins_in_a_later_round():
    grid_of = {"identity": {**IDENTITY, "version": "0.0.9"}}
    found = Roster(IDENTITY)
    with LocalGrid(client(identity=grid_of["identity"]), 2, {}) as grid:
        found.refresh(grid, 5)
        assert not found.sites
        assert len(found.refused) == 2
        grid._client = client()  # the sites install the server's version and start again
        found.refresh(grid, 5, again=False)
        assert not found.sites
        found.refresh(grid, 5)
    assert sorted(found.sites) == [0, 1]
    assert not found.refused


def enrolled(**of: Enrolment):
    return lambda: {int(node.removeprefix("n")): enrolment for node, enrolment in of.items()}


def test_F10_a_key_speaks_for_its_own_site_only():
    listed = enrolled(
        n1000=Enrolment(0, "st-mary", 40), n1001=Enrolment(5, "charite", 0)
    )  # 1002 is not enrolled
    found = Roster(IDENTITY, listed)
    with LocalGrid(client(), 3, {}) as grid:
        found.refresh(grid, 5)
    assert found.sites == {0: Site(0, 1000, 40, "st-mary")}  # 100 declared, 40 agreed
    reasons = {node: verdict.detail for node, verdict in found.refused.items()}
    assert reasons == {
        1001: "this node's key is enrolled as site 5 (charite), it says 1",
        1002: "this node's key is not enrolled",
    }


def test_a_site_that_is_enrolled_while_the_server_runs_joins():
    listed = {1000: Enrolment(0, "st-mary", 0)}
    found = Roster(IDENTITY, lambda: listed)
    with LocalGrid(client(), 2, {}) as grid:
        found.refresh(grid, 5)
        assert sorted(found.sites) == [0]
        listed[1001] = Enrolment(1, "charite", 0)
        found.refresh(grid, 5)
    assert sorted(found.sites) == [0, 1]


def test_absent_sites_are_waited_for_and_not_longer_than_allowed(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    found = Roster(IDENTITY)
    with LocalGrid(client(), 3, {}) as grid:
        everyone, looks = grid.get_node_ids(), []

        def come_back():
            looks.append(0)
            return everyone if len(looks) > 4 else everyone[:1]

        monkeypatch.setattr(grid, "get_node_ids", come_back)
        found.gather(grid, 3, 30)
        assert sorted(found.sites) == [0, 1, 2]
        assert len(looks) == 5
        monkeypatch.setattr(grid, "get_node_ids", lambda: everyone[:2])
        found.gather(grid, 3, 0.05)
    assert sorted(found.sites) == [0, 1]


def test_a_silent_node_does_not_take_the_whole_time_to_join(monkeypatch):
    waited = []

    def hear(grid, contents, kind, seconds):
        waited.append(seconds)
        return [], Traffic(0, 0)

    monkeypatch.setattr(module, "exchange", hear)
    grid = SimpleNamespace(get_node_ids=lambda: [1000])
    Roster(IDENTITY).wait(grid, 0, 604_800.0)
    assert waited == [600.0]


def test_a_simulated_site_is_believed_up_to_its_share_of_the_images():
    found = Roster(IDENTITY, images={0: 100, 1: 250, 2: 40})
    with LocalGrid(client(), 4, {}) as grid:
        found.refresh(grid, 5)
    told = {p: (site.enrolled, site.agreed) for p, site in found.sites.items()}
    # site 2 says more than the server's own division gives it, of site 3 the server knows nothing
    assert told == {0: (100, True), 1: (100, True), 2: (100, False), 3: (100, False)}
