"""Scores of sites: believed, weighed, summed up."""

import math

import pytest

from fedprompt.round_record import RoundRecord, SiteScore
from server.gate.verdict import Asked, Reason, Reply
from server.rounds.evaluation import Score, evaluate, is_due, judge_scores, summarise
from server.rounds.federation import federation
from server.rounds.local_grid import LocalGrid
from tests.sites import client, config, start, task

ASKED = {100 + i: Asked(i, 10 + i, 100, lambda _: False) for i in range(3)}


def reading(site, count=20, correct=10, loss=0.5, receipt=None):
    bound = 10 + site if receipt is None else receipt
    return Reply(100 + site, count=count, receipt=bound, loss=loss), correct


def test_scores_come_by_site():
    scores, verdicts = judge_scores([reading(2), reading(0), reading(1, correct=20)], ASKED)
    assert list(scores) == [0, 1, 2]
    assert scores[1] == Score(20, 20, 0.5)
    assert scores[1].accuracy == 1.0
    assert verdicts == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reading(1, correct=21), Reason.BAD_COUNT),
        (reading(1, correct=None), Reason.BAD_COUNT),
        (reading(1, count=-1), Reason.BAD_COUNT),
        (reading(1, loss=math.nan), Reason.NOT_FINITE),
        (reading(1, receipt=0), Reason.IDENTITY),
    ],
)
def test_what_cannot_be_is_refused(bad, reason):
    scores, verdicts = judge_scores([reading(0), bad, reading(2)], ASKED)
    assert list(scores) == [0, 2]
    assert [(v.site, v.reasons) for v in verdicts] == [(1, (reason,))]


def test_silence_is_named():
    _, verdicts = judge_scores([reading(0), reading(1)], ASKED)
    assert [(v.site, v.reasons) for v in verdicts] == [(2, (Reason.TIMEOUT,))]


def test_nothing_held_out_is_no_score_and_no_fault():
    scores, verdicts = judge_scores([reading(0, count=0, correct=0), *map(reading, (1, 2))], ASKED)
    assert list(scores) == [1, 2]
    assert verdicts == []


def test_the_average_is_weighted_and_the_worst_is_named():
    scores = {0: Score(10, 10, 0.0), 1: Score(30, 15, 1.0)}
    found = summarise(scores, {0: 100, 1: 100}, 3)
    assert found.round == 3
    assert found.accuracy == pytest.approx(25 / 40)
    assert found.nll == pytest.approx(0.75)
    assert found.worst_client_acc == 0.5
    assert found.sites[1] == SiteScore(accuracy=0.5, nll=1.0, examples=30)


def test_no_scores_give_no_average():
    assert summarise({}, {}, 0) == RoundRecord(round=0)
    assert summarise({0: Score(5, 5, 0.0)}, {0: 0}, 0) == RoundRecord(round=0)


@pytest.mark.parametrize(
    ("every", "due"), [(0, [0, 6]), (1, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 4, 6])]
)
def test_first_and_last_rounds_are_always_due(every, due):
    assert [r for r in range(7) if is_due(r, 6, every)] == due


def test_evaluate_asks_every_site(tmp_path):
    with LocalGrid(client(), 3, {}) as grid:
        found = federation(grid, task(), config(tmp_path))
        found.roster.wait(grid, 3, 5)
        record, verdicts = evaluate(found, start(), 0)
    assert sorted(record.sites) == [0, 1, 2]
    assert record.worst_client_acc == 0.5
    assert record.evaluation_bytes_up > 0
    assert verdicts == []
