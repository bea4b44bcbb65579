"""The gate, as a pure function of plain replies."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gate.judge import check_sender, is_count, is_finite, judge
from server.gate.norms import Bounds
from server.gate.verdict import Asked, Reason, Reply, Verdict, refuse
from server.merge.rules import RULES

LIFT = RULES["product"].lift
CURRENT = {"ctx": np.zeros((2, 3))}
OPEN = Bounds(factor=0.0, norm=0.0)
MEDIAN = Bounds(factor=5.0, norm=0.0)


def asked(sites=3, enrolled=100):
    return {
        100 + i: Asked(i, receipt=10 + i, enrolled=enrolled, is_stale=lambda r: r == -1)
        for i in range(sites)
    }


def reply(site, scale=1.0, count=50, **changes):
    arrays = {
        "ctx.A": np.ones((2, 1), np.float32),
        "ctx.B": np.full((1, 3), scale, np.float32),
    }
    arrays["ctx.B"][0, 2] *= np.float32(1 + site * 2**-20)  # no two sites send the same bits
    honest = Reply(100 + site, None, arrays, count, 10 + site, 0.7)
    return replace(honest, **changes)


def run(replies, sites=3, bounds=OPEN):
    updates, verdicts = judge(replies, asked(sites), CURRENT, LIFT, bounds)
    return updates, {v.site: v for v in verdicts}


def test_honest_replies_pass_in_the_order_of_sites():
    updates, verdicts = run([reply(2), reply(0), reply(1)])
    assert [u.site for u in updates] == [0, 1, 2]
    assert [u.weight for u in updates] == [50, 50, 50]
    np.testing.assert_array_equal(updates[0].update["ctx"], np.ones((2, 3)))
    assert [u.loss for u in updates] == [0.7, 0.7, 0.7]
    assert all(v.accepted and not v.reasons for v in verdicts.values())


@pytest.mark.parametrize("count", [-1, -25, 1.5, math.nan, True, None, [3], "7"])
def test_a_count_that_is_none_is_refused(count):
    updates, verdicts = run([reply(0), reply(1, count=count)])
    assert [u.site for u in updates] == [0]
    assert verdicts[1].reasons == (Reason.BAD_COUNT,)


def test_a_count_over_the_enrolled_size_is_capped():
    updates, verdicts = run([reply(0, count=10**12)])
    assert updates[0].weight == 100
    assert verdicts[0].accepted
    assert verdicts[0].reasons == (Reason.CAPPED,)


def test_no_examples_means_no_say_and_no_fault():
    updates, verdicts = run([reply(0, count=0, arrays=None, loss=math.nan)])
    assert updates == []
    assert verdicts[0].accepted
    assert verdicts[0].reasons == (Reason.ABSTAINED,)
    assert not verdicts[0].strike


def test_silence_is_named_and_no_offence():
    _, verdicts = run([reply(0)])
    assert verdicts[1].reasons == (Reason.TIMEOUT,)
    assert not verdicts[1].accepted
    assert not verdicts[1].strike


def test_a_second_reply_is_not_counted():
    updates, verdicts = judge([reply(0), reply(0, scale=9)], asked(1), CURRENT, LIFT, OPEN)
    assert len(updates) == 1
    assert updates[0].update["ctx"][0, 0] == 1.0
    assert [v.reasons for v in verdicts if not v.accepted] == [(Reason.DUPLICATE,)]


@pytest.mark.parametrize(("receipt", "reason"), [(-1, Reason.STALE), (99, Reason.IDENTITY)])
def test_a_receipt_of_another_round_or_identity_is_refused(receipt, reason):
    updates, verdicts = run([reply(0, receipt=receipt)])
    assert updates == []
    assert verdicts[0].reasons == (reason,)
    assert verdicts[0].strike


def test_a_node_that_was_not_asked_is_refused():
    updates, verdicts = judge([reply(7)], asked(1), CURRENT, LIFT, OPEN)
    assert updates == []
    assert {v.site for v in verdicts} == {None, 0}


def test_what_was_refused_while_unpacking_stays_refused():
    broken = Reply(100, (Reason.NOT_FINITE, "ctx.B holds NaN"))
    updates, verdicts = run([broken, reply(1)])
    assert [u.site for u in updates] == [1]
    assert verdicts[0] == refuse(0, 100, Reason.NOT_FINITE, "ctx.B holds NaN")


def test_a_loss_may_stay_at_the_site():
    updates, verdicts = run([reply(0, loss=None)])
    assert updates[0].loss is None
    assert verdicts[0].reasons == ()


def test_a_copy_counts_once_for_the_lowest_site_and_nobody_is_struck():
    copy = reply(2).arrays
    updates, verdicts = run([reply(2), reply(1, arrays=copy), reply(0)])
    assert [u.site for u in updates] == [0, 1]
    assert (verdicts[2].accepted, verdicts[2].reasons) == (False, (Reason.COPIED,))
    assert "site 1's" in verdicts[2].detail
    assert not any(v.strike for v in verdicts.values())


def test_copies_do_not_set_the_bound():
    """Three names for one long update would be the median of five, were they counted thrice."""
    long = reply(4, scale=100).arrays
    replies = [reply(0), reply(1), *(reply(i, arrays=long) for i in (2, 3, 4))]
    updates, verdicts = run(replies, sites=5, bounds=MEDIAN)
    assert verdicts[2].reasons == (Reason.CLIPPED,)
    assert np.linalg.norm(updates[2].update["ctx"]) < 5.1 * np.linalg.norm(updates[0].update["ctx"])


def test_who_changes_nothing_is_named_and_merged():
    updates, verdicts = run([reply(0), reply(1, scale=0), reply(2, scale=0)])
    assert [u.site for u in updates] == [0, 1, 2]
    for site in (1, 2):
        assert verdicts[site].accepted
        assert verdicts[site].reasons == (Reason.UNCHANGED,)
        assert not verdicts[site].strike


def test_the_largest_number_that_is_believed_follows_what_was_sent():
    far = {"ctx": np.full((2, 3), 1e5)}
    replies = [reply(0, scale=70_000.0)]
    updates, verdicts = judge(replies, asked(1), CURRENT, LIFT, OPEN)
    assert (updates, verdicts[0].reasons) == ([], (Reason.NORM,))
    assert "7e+04, expected 64,000 at most" in verdicts[0].detail
    updates, _ = judge(replies, asked(1), far, LIFT, OPEN)
    assert len(updates) == 1


@pytest.mark.parametrize("loss", [1.7e308, 2**62, -1])
def test_a_finite_loss_that_no_images_can_give_is_refused(loss):
    updates, verdicts = run([reply(0, loss=loss)])
    assert updates == []
    assert verdicts[0].reasons == (Reason.OUT_OF_RANGE,)
    assert verdicts[0].strike


@pytest.mark.parametrize("loss", [math.nan, math.inf, "0.1"])
def test_a_loss_that_is_no_number_is_refused(loss):
    _, verdicts = run([reply(0, loss=loss)])
    assert verdicts[0].reasons == (Reason.NOT_FINITE,)


def test_arrays_must_come_with_a_count():
    _, verdicts = run([reply(0, arrays=None)])
    assert verdicts[0].reasons == (Reason.MISSING_ARRAY,)


def test_a_large_update_is_shortened_to_the_bound():
    updates, verdicts = run([reply(0), reply(1), reply(2, scale=10)], bounds=MEDIAN)
    np.testing.assert_allclose(updates[2].update["ctx"], 5.0, rtol=1e-5)
    assert verdicts[2].accepted
    assert verdicts[2].reasons == (Reason.CLIPPED,)


@pytest.mark.parametrize("scale", [1e3, 1e10, 1e30, 3e38])
def test_an_absurd_update_is_refused(scale):
    updates, verdicts = run([reply(0), reply(1), reply(2, scale=scale)], bounds=MEDIAN)
    assert [u.site for u in updates] == [0, 1]
    assert verdicts[2].reasons == (Reason.NORM,)


def test_one_attacker_of_two_cannot_set_the_bound():
    updates, _ = run([reply(0), reply(1, scale=1e30)], bounds=MEDIAN)
    assert [u.site for u in updates] == [0]


def test_an_absolute_bound_holds_without_a_median():
    updates, _ = run([reply(0, scale=4.0)], bounds=Bounds(0.0, 1.0))
    assert np.linalg.norm(updates[0].update["ctx"]) == pytest.approx(1.0)


def test_sites_that_did_not_move_do_not_pull_the_bound_to_zero():
    updates, verdicts = run([reply(0, scale=0), reply(1, scale=0), reply(2)], bounds=MEDIAN)
    np.testing.assert_allclose(updates[2].update["ctx"], np.ones((2, 3)), rtol=1e-5)
    assert verdicts[2].reasons == ()


def test_capped_and_clipped_are_both_told():
    replies = [reply(0), reply(1), reply(2, scale=10, count=10**6)]
    _, verdicts = run(replies, bounds=MEDIAN)
    assert verdicts[2].reasons == (Reason.CAPPED, Reason.CLIPPED)


@settings(max_examples=50)
@given(st.permutations(range(5)), st.lists(st.floats(0.1, 100), min_size=5, max_size=5))
def test_the_order_of_replies_does_not_matter(order, scales):
    replies = [reply(i, scale=scales[i]) for i in range(5)]
    one = judge(replies, asked(5), CURRENT, LIFT, MEDIAN)
    other = judge([replies[i] for i in order], asked(5), CURRENT, LIFT, MEDIAN)
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        assert a.site == b.site
        assert a.update["ctx"].tobytes() == b.update["ctx"].tobytes()


def test_check_sender_keeps_only_bound_replies():
    passed, verdicts = check_sender([reply(0), reply(1, receipt=5)], asked())
    assert [r.node for r in passed] == [100]
    assert [v.site for v in verdicts] == [1]


def test_only_refusals_that_are_the_sites_doing_are_strikes():
    assert not Verdict(0, 1, True, (Reason.CLIPPED,)).strike
    assert refuse(0, 1, Reason.NORM, "").strike
    assert not refuse(0, 1, Reason.TIMEOUT, "").strike


def test_is_count_and_is_finite():
    assert is_count(0)
    assert not is_count(True)
    assert is_finite(-1.5)
    assert not is_finite(math.inf)
    assert not is_finite(10**400)
