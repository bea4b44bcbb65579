import os
import subprocess
import sys

import pytest

from benchmarks import kills, processes, replay, soak
from benchmarks.deployment import IMAGES, make, three_ports
from benchmarks.growth import growth, medians
from benchmarks.kills import SERVER, SITE, Kill
from benchmarks.processes import Life
from benchmarks.soak import Setting, workplace
from fedprompt.round_record import RoundRecord


def record(number, attempt=0, seconds=4.0, **more):
    return RoundRecord(round=number, attempt=attempt, seconds=seconds, **more)


def test_a_round_is_lost_if_it_is_absent_or_there_twice():
    records = [record(0), record(1), record(3), record(3)]
    assert soak.lost(records, 3, excused=[]) == [2, 3]
    assert soak.lost([record(n) for n in range(4)], 3, excused=[]) == []


def test_a_second_try_is_a_loss_unless_something_was_killed():
    records = [record(0), record(1, attempt=1), record(2, attempt=2)]
    assert soak.lost(records, 2, excused=[2]) == [1]


def test_a_kill_excuses_the_round_it_fell_into_and_those_just_after():
    records, commits = [record(1), record(2), record(3)], {1: 100.0, 2: 110.0, 3: 400.0}
    killed = [Kill("worker", 1, 0, 105.0)]
    assert soak.excused(records, commits, killed, seconds=0.0) == []
    assert soak.excused(records, commits, killed, seconds=5.0) == [2]
    assert soak.excused(records, commits, killed, seconds=300.0) == [2, 3]


def test_bytes_are_told_by_reply():
    records = [
        record(0),
        record(1, bytes_up=300, answered=(1, 2)),
        record(2, bytes_up=600, answered=(3,)),
    ]
    assert soak.bytes_up(records) == 300


def test_kills_are_planned_by_seed_and_leave_the_server_alone_at_the_end():
    planned = kills.plan(200, 21, 21, seed=1)
    assert planned == kills.plan(200, 21, 21, seed=1) != kills.plan(200, 21, 21, seed=2)
    assert [k.round for k in planned] == sorted(k.round for k in planned)
    for kinds, last in ((SERVER, 116), (SITE, 199)):
        own = [kill for kill in planned if kill.kind in kinds]
        assert len(own) == 21
        assert {kill.kind for kill in own} == set(kinds)
        assert len({kill.round for kill in own}) == 21
        assert all(0 <= kill.round < last and 0 <= kill.delay < 1 for kill in own)


def test_more_kills_than_rounds_are_planned_too():
    assert len(kills.plan(3, 7, 5, seed=0)) == 12


def test_growth_compares_a_life_after_its_warm_up_with_its_end():
    told = [(r, 50 if r < 5 else 100 if r < 100 else 103) for r in range(120)]
    assert medians(told, scale=1.0) == (100, 103)
    assert medians(told[:50], scale=1.0) is None
    assert medians([], scale=1.0) is None


def test_growth_is_told_by_kind_as_the_median_over_lives():
    ends = {1: 102, 2: 104, 3: 150}
    samples = {
        Life("worker", pid, 0): [(r, 100 if r < 60 else end) for r in range(100)]
        for pid, end in ends.items()
    }
    samples[Life("superlink", 4, 0)] = [(1, 100)]  # too short a life
    found = growth(samples, rounds=200)
    assert set(found) == {"worker"}
    assert found["worker"].lives == 3
    assert found["worker"].relative == pytest.approx(0.04)
    assert found["worker"].worst == pytest.approx(0.5)


def test_a_process_is_known_by_its_command_line_and_its_memory_is_its_own():
    hold = "x = b'1' * 50_000_000; print(len(x), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, "client.deployment.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        child.stdout.readline()
        found = processes.life(child.pid)
        assert found.kind == "worker"
        assert 50e6 < processes.memory(child.pid) < 100e6
        assert child.pid in processes.children(os.getpid())
        child.communicate(b"\n")
    assert processes.life(child.pid) is None
    assert processes.memory(child.pid) is None


def test_ports_come_in_a_row():
    assert 0 < three_ports() < 65534


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Run three rounds over one real site and three simulated ones, with kills on both sides."""
    setting = Setting(
        rounds=3, nodes=4, real=1, server_kills=2, site_kills=1, fraction=1.0, deadline=60.0
    )
    with workplace(tmp_path_factory.mktemp("soak")) as place:
        deployment = make(place, setting.nodes, setting.settings())
        yield soak.run(setting, deployment), deployment


@pytest.mark.slow
def test_a_small_soak_loses_nothing(small):
    found, _ = small
    assert (found["rounds"], found["nodes"], found["real_nodes"]) == (3, 4, 1)
    assert found["rounds_lost"] == 0
    assert found["kills"] == 3
    assert found["resumed_identical"] is True
    assert 500 < found["bytes_up"] < 3_000  # 64 numbers, as float32, with the framing


@pytest.mark.slow
def test_the_replay_sees_another_update(small):
    _, deployment = small
    records = replay.read(deployment)
    records[2] |= RoundRecord(round=2, accepted=records[2].accepted[1:])
    assert replay.Replay(deployment).first_difference(records) == 2
    assert len(deployment.load(deployment.server.run_settings())[0].train_labels) == 0.8 * IMAGES
