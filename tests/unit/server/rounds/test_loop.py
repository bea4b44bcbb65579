"""The loop as a whole; kills and resumption are in tests/faults."""

import logging

import numpy as np
import pytest

from fedprompt.processes import logs
from fedprompt.run_folder import RunFolder
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests import round_lines
from tests.sites import client, config, start, task


def run(folder, sites=6, workers=1, **settings):
    with LocalGrid(client(), sites, {}, workers) as grid:
        state = Rounds(grid, task(start(rank=2)), config(folder, **settings), sites).run()
    return state, round_lines.read(folder)


def test_a_run_commits_every_round(tmp_path):
    state, lines = run(tmp_path)
    assert state.round == 3
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["joined"] == list(range(6))
    assert all("accuracy" in line and "information_density" in line for line in lines)
    assert np.isfinite(state.arrays["ctx.B"]).all()


def test_rounds_are_evaluated_when_due(tmp_path):
    _, lines = run(tmp_path, rounds=5, evaluate_every=2)
    assert [line["round"] for line in lines if "accuracy" in line] == [0, 2, 4, 5]


def test_no_rounds_evaluate_the_start_only(tmp_path):
    state, lines = run(tmp_path, rounds=0)
    assert len(lines) == 1
    assert state.arrays["ctx.A"].tobytes() == start(rank=2)["ctx.A"].tobytes()


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_workers_do_not_change_a_byte(tmp_path, strategy):
    one, _ = run(tmp_path / "1", strategy=strategy)
    many, _ = run(tmp_path / "4", strategy=strategy, workers=4)
    for name, array in one.arrays.items():
        assert array.tobytes() == many.arrays[name].tobytes()


def test_seeds_change_the_prompt(tmp_path):
    one, _ = run(tmp_path / "0", seed=0)
    other, _ = run(tmp_path / "1", seed=1)
    assert one.arrays["ctx.B"].tobytes() != other.arrays["ctx.B"].tobytes()


def test_each_round_is_logged_with_its_record(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "fedprompt.rounds"):
        run(tmp_path)
    found = [vars(r)[logs.ROUND] for r in caplog.records if hasattr(r, logs.ROUND)]
    assert found == RunFolder(tmp_path).records()
    assert [record.round for record in found] == [0, 1, 2, 3]


def test_the_default_prompt_takes_at_most_two_and_a_half_kilobytes_up(tmp_path):
    """ViT-B/16, length 4, rank 1: 516 numbers, framing included."""
    with LocalGrid(client(), 1, {}) as grid:
        Rounds(grid, task(start(width=512)), config(tmp_path / "32", rounds=1), 1).run()
    with LocalGrid(client(), 1, {}) as grid:
        half = config(tmp_path / "16", rounds=1, dtype="float16")
        Rounds(grid, task(start(width=512)), half, 1).run()
    full, short = (round_lines.read(tmp_path / n)[1]["bytes_up"] for n in ("32", "16"))
    assert 2064 < full <= 2500
    assert 1032 < short <= 1400
