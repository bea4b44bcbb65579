"""Receipts bind a reply to run, round, site and identity."""

from server.gate.receipts import Receipts
from server.joining.admission import Site
from tests.sites import IDENTITY

SITE, OTHER = Site(3, 1003, 50), Site(4, 1004, 50)


def test_a_receipt_changes_with_everything_it_binds():
    ours = Receipts("run", IDENTITY)
    found = {
        ours.of(SITE, 1),
        ours.of(SITE, 2),
        ours.of(OTHER, 1),
        Receipts("other", IDENTITY).of(SITE, 1),
        Receipts("run", IDENTITY | {"backbone": "c"}).of(SITE, 1),
    }
    assert len(found) == 5


def test_asking_knows_the_earlier_rounds():
    ours = Receipts("run", IDENTITY)
    asked = ours.ask(SITE, 5)
    assert (asked.site, asked.enrolled, asked.receipt) == (3, 50, ours.of(SITE, 5))
    assert all(asked.is_stale(ours.of(SITE, earlier)) for earlier in range(5))
    assert not asked.is_stale(ours.of(SITE, 5))
    assert not asked.is_stale(ours.of(OTHER, 4))
