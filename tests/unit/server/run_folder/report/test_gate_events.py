"""What the gate refused, by reason and by site."""

from server.gate.judge import Reason
from server.run_folder.report.gate_events import MEANINGS, by_reason, gate_events
from server.run_folder.report.site_rows import shown_sites
from tests.unit.server.run_folder.report.made_up_run import lines, parse


def test_every_reason_of_the_gate_is_explained():
    assert set(MEANINGS) == {str(reason) for reason in Reason}


def test_events_come_in_order_with_their_phase():
    found = gate_events(parse(lines()), set(range(10)))
    assert [event.round for event in found] == sorted(event.round for event in found)
    assert (found[0].phase, found[0].site, found[0].node) == ("joining", None, 99)
    assert found[1].reasons == ("norm",)


def test_counts_of_small_sites_are_not_told():
    record = parse(lines())
    told = [e for e in gate_events(record, shown_sites(record)) if e.reasons == ("capped",)]
    assert told
    assert all("13" not in event.detail for event in told)
    assert "13" in next(e.detail for e in gate_events(record, {4}) if e.reasons == ("capped",))


def test_reasons_are_counted_refusals_first():
    rows = by_reason(gate_events(parse(lines()), set()))
    assert [(row.reason, row.replies) for row in rows] == [
        ("norm", 2), ("identity", 1), ("timeout", 1), ("capped", 3), ("clipped", 3),
    ]  # fmt: skip
    assert rows[0].senders == (("site 5", 2),)
    assert rows[1].senders == (("node 99", 1),)


def test_a_reason_nobody_knows_is_listed_all_the_same():
    found = lines(1)
    found[1]["verdicts"] = [
        {"site": 1, "node": 2, "accepted": False, "reasons": ["odd"], "detail": ""}
    ]
    assert by_reason(gate_events(parse(found)[1:], set()))[0].reason == "odd"


def test_nothing_found():
    assert by_reason(gate_events([], set())) == []
