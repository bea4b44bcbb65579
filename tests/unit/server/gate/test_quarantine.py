"""Strikes and quarantine, as pure state."""

from server.gate.quarantine import Conduct
from server.gate.verdict import Reason, Verdict, refuse


def bad(*sites):
    return [refuse(site, 1000, Reason.NORM, "") for site in sites]


def test_strikes_are_counted_for_offences_of_known_sites():
    verdicts = [*bad(1, 1, None), refuse(2, 0, Reason.TIMEOUT, ""), Verdict(3, 0, True)]
    assert Conduct().strike(verdicts, 1, limit=9, rounds=4) == Conduct({1: 2})


def test_the_limit_sends_a_site_away_for_some_rounds():
    found = Conduct({1: 2}).strike(bad(1), 5, limit=3, rounds=4)
    assert found == Conduct({1: 3}, {1: 9})
    assert found.release(9) == found
    assert found.release(10) == Conduct({1: 1}, {})


def test_after_it_fewer_strikes_are_enough():
    back = Conduct({1: 3}, {1: 9}).release(10)
    once = back.strike(bad(1), 10, limit=3, rounds=4)
    assert 1 not in once.quarantined
    assert once.strike(bad(1), 11, limit=3, rounds=4).quarantined == {1: 15}


def test_no_limit_sends_nobody_away():
    assert Conduct({1: 99}).strike(bad(1), 5, limit=0, rounds=4).quarantined == {}


def test_many_strikes_do_not_keep_a_site_out_for_ever():
    back = Conduct({1: 8}, {1: 9}).release(10)
    assert back == Conduct({1: 4}, {})
    assert back.strike([], 10, limit=3, rounds=4) == back


def test_a_single_strike_is_forgotten():
    assert Conduct({1: 1}, {1: 9}).release(10) == Conduct()


def test_others_are_left_alone():
    found = Conduct({1: 3, 2: 2}, {1: 9, 2: 20}).release(10)
    assert found == Conduct({1: 1, 2: 2}, {2: 20})


def late(site, server_round, before=None):
    verdicts = [refuse(site, 1000, Reason.WITHHELD, "")]
    return (before or Conduct()).strike(verdicts, server_round, limit=3, rounds=4)


def test_a_reply_that_did_not_come_whole_is_borne_once():
    """A link may die on the way; a site that makes a habit of it is struck."""
    once = late(1, 5)
    assert once == Conduct(withheld={1: 5})
    assert late(1, 9, once).strikes == {1: 1}
    assert late(1, 5, once).strikes == {1: 1}  # in another exchange of the round
    assert late(2, 6, once).strikes == {}
    forgotten = late(1, 10, once)
    assert forgotten == Conduct(withheld={1: 10})


def test_a_habit_ends_in_quarantine():
    found = Conduct()
    for server_round in range(1, 5):
        found = late(1, server_round, found)
    assert found.quarantined == {1: 8}
    assert found.release(9).withheld == {1: 4}


def test_the_state_given_is_not_changed():
    strikes = {1: 2}
    Conduct(strikes).strike(bad(1), 1, limit=3, rounds=4)
    assert strikes == {1: 2}
