"""Copies and unchanged updates."""

from dataclasses import replace

import numpy as np

from server.gate.duplicate_updates import drop_copies, name_holding
from server.gate.verdict import Accepted, Reason, Verdict

CURRENT = {"x": np.zeros(3)}


def update(site, *values):
    return Accepted(site, 100 + site, {"x": np.array(values, float)}, 1, 0.5)


def test_honest_updates_pass_untouched():
    found = [update(0, 1, 2, 3), update(1, 1, 2, 3.0000001)]
    assert drop_copies(found, CURRENT) == (found, [])


def test_the_lowest_site_keeps_its_weight_whatever_the_order():
    kept, verdicts = drop_copies(
        [update(5, 1, 1, 1), update(2, 1, 1, 1), update(3, 1, 1, 1)], CURRENT
    )
    assert [u.site for u in kept] == [2]
    assert [(v.site, v.accepted, v.reasons) for v in verdicts] == [
        (3, False, (Reason.COPIED,)),
        (5, False, (Reason.COPIED,)),
    ]
    assert all("site 2's" in v.detail and not v.strike for v in verdicts)


def test_free_riders_are_named_and_kept_and_no_copies_of_each_other():
    kept, verdicts = drop_copies([update(0, 0, 0, 0), update(1, 0, 0, 0)], CURRENT)
    assert [u.site for u in kept] == [0, 1]
    assert [(v.accepted, v.reasons, v.strike) for v in verdicts] == [
        (True, (Reason.UNCHANGED,), False)
    ] * 2


def test_who_holds_the_round_back_is_named_with_its_share():
    updates = [replace(update(0, 0, 0, 0), weight=3), replace(update(1, 1, 1, 1), weight=7)]
    verdicts = [
        Verdict(0, 100, True, (Reason.UNCHANGED,), "as it came"),
        Verdict(1, 101, True),
        Verdict(2, 102, False, (Reason.TIMEOUT,), "late"),
    ]
    held, *others = name_holding(verdicts, updates)
    assert held.reasons == (Reason.UNCHANGED, Reason.HOLDING)
    assert held.detail == "as it came; with 30% of the round's weight"
    assert others == verdicts[1:]
    light = [replace(updates[0], weight=1), updates[1]]
    assert name_holding(verdicts, light) == verdicts
    assert name_holding(verdicts, []) == verdicts
