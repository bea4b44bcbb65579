"""Verdicts and their reason codes."""

from fedprompt.round_record import RecordedVerdict
from fedprompt.wire import Reason as WireReason
from server.gate.verdict import Reason, Verdict, listed, recorded, refuse


def test_every_reason_of_the_wire_has_its_code_here():
    assert {str(reason) for reason in WireReason} <= {str(reason) for reason in Reason}


def test_refuse_drops_with_one_reason():
    assert refuse(1, 1001, Reason.NORM, "x") == Verdict(1, 1001, False, (Reason.NORM,), "x")


def test_only_refusals_that_are_the_sites_doing_are_strikes():
    assert not Verdict(0, 1, True, (Reason.CLIPPED,)).strike
    assert refuse(0, 1, Reason.NORM, "").strike
    assert refuse(0, 1, Reason.ERROR, "").strike
    for reason in (Reason.TIMEOUT, Reason.DUPLICATE, Reason.COPIED, Reason.DECLINED):
        assert not refuse(0, 1, reason, "").strike
    assert not Verdict(0, 1, False, (Reason.CAPPED, Reason.COPIED)).strike
    assert Verdict(0, 1, True, (Reason.CAPPED,)).strike  # accepted, for what it was enrolled with
    assert not Verdict(0, 1, True, (Reason.UNAGREED, Reason.HOLDING)).strike


def test_a_detail_is_one_printable_line():
    assert refuse(0, 1, Reason.ERROR, "a\n\x1b[2Jb").detail == r"a \x1b[2Jb"


def test_what_several_sites_are_refused_for_is_told_once():
    same = [refuse(i, 100 + i, Reason.ERROR, "no images") for i in range(12)]
    told = listed([*same, refuse(None, 7, Reason.IDENTITY, "not asked")], most=3)
    expected = "site 0, site 1, site 2 ...: error (no images); node 7: identity (not asked)"
    assert told == expected
    assert listed([]) == ""


def test_a_verdict_stands_in_the_record_with_its_codes_as_text():
    (found,) = recorded([refuse(1, 1001, Reason.NORM, "x")])
    assert found == RecordedVerdict(
        site=1, node=1001, accepted=False, reasons=("norm",), detail="x"
    )
    assert type(found.reasons[0]) is str
