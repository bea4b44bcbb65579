"""Copies and unchanged updates."""

import numpy as np

from server.copies import drop_copies
from server.verdict import Accepted, Reason

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
