"""Five attackers at once: what a record says of them, and a small siege of a real deployment."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import RecordDict

from benchmarks import besiegers, siege
from benchmarks.besiegers import ATTACKS
from benchmarks.siege import Setting
from benchmarks.soak import workplace
from fedprompt.round_record import RecordedVerdict, RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.wire import ARRAYS, from_array_record, to_array_record


def verdict(site, *reasons, accepted=False):
    return RecordedVerdict(site=site, node=site, reasons=reasons, accepted=accepted)


def record(number, *verdicts, away=(), attempt=0):
    return RoundRecord(round=number, attempt=attempt, quarantined=away, verdicts=verdicts)


def test_an_attacker_is_named_when_it_was_struck_and_sat_out():
    setting = Setting(rounds=3, honest=2, attacks=("huge-loss", "replay"))
    records = [
        record(0, verdict(0, "timeout"), verdict(1, "capped", accepted=True)),
        record(1, verdict(2, "out-of-range"), verdict(3, "stale")),
        record(2, verdict(2, "out-of-range"), away=(2,), attempt=1),
        record(3, away=(2,)),
    ]
    assert siege.conclude(setting, records) == {
        "rounds": 3,
        "rounds_lost": 1,
        "named": ["huge-loss"],
        "attackers": {
            "huge-loss": {"site": 2, "reasons": ["out-of-range"], "quarantined_after_round": 2},
            "replay": {"site": 3, "reasons": ["stale"], "quarantined_after_round": None},
        },
        "honest_in_quarantine": [],
    }


def test_an_honest_site_in_quarantine_is_told():
    setting = Setting(rounds=0, honest=2, attacks=())
    assert siege.conclude(setting, [record(0, away=(1,))])["honest_in_quarantine"] == [1]


def test_the_heavyweight_sends_what_a_site_sends_that_learned_nothing():
    """Of dip an update of zero, in the names that the gate expects; of others what came."""

    def sent(came, reply):
        message, answer = (
            SimpleNamespace(content=RecordDict({ARRAYS: to_array_record(arrays, "float32")}))
            for arrays in (came, reply)
        )
        shapes = {name: array.shape for name, array in reply.items()}
        return from_array_record(besiegers._unmoved(message, answer), shapes, "float32")

    ctx, b = np.ones((4, 8), np.float32), np.ones((1, 8), np.float32)
    assert not sent({"ctx": ctx}, {"ctx.B": b})["ctx.B"].any()
    assert np.array_equal(sent({"ctx": ctx}, {"ctx": 2 * ctx})["ctx"], ctx)


@pytest.mark.slow
def test_a_small_siege_costs_no_round_and_names_every_attacker(tmp_path):
    setting = Setting(rounds=5, honest=5, images=40, test_images=200, deadline=20.0)
    with workplace(tmp_path) as place:
        bench = siege.workbench(setting)
        run = siege.play(place / "besieged", setting, bench, setting.attacks)
        found = siege.conclude(setting, RunFolder(run).records())
        assert siege.accuracy(run, bench) > 0
    assert (found["rounds"], found["rounds_lost"]) == (5, 0)
    assert found["named"] == list(ATTACKS)
    assert found["honest_in_quarantine"] == []
