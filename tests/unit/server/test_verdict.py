"""Verdicts and their reason codes."""

from fedprompt.wire import Reason as WireReason
from server.verdict import Reason, Verdict, refuse


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
