"""A run may end in an average of its rounds' prompts, whether it was interrupted or not."""

from dataclasses import replace

import numpy as np
import pytest

from fedprompt.errors import ConfigError
from fedprompt.prompts.averaging import gaussian_weights
from server.rounds import loop as module
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

ROUNDS, SITES = 5, 3
FULL = {"visual.0": np.zeros((2, 6), np.float32), "bias": np.zeros(4, np.float32)}


def run(folder, arrays, averaged=True, **settings):
    """Return the arrays after each committed round."""
    chosen = replace(task(arrays), averaged=averaged)
    with LocalGrid(client(), SITES, {}) as grid:
        rounds = Rounds(grid, chosen, config(folder, rounds=ROUNDS, **settings), SITES)
        return {state.round: state.arrays for state in rounds.committed()}


def merged(folder, arrays, **settings):
    """Return what the same run merges where nothing is averaged."""
    return run(folder, arrays, averaged=False, **settings)


def equal(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_the_last_round_is_the_average_of_all_and_no_other_changes(tmp_path):
    found, plain = run(tmp_path / "1", FULL), merged(tmp_path / "2", FULL)
    for number in range(ROUNDS):
        equal(found[number], plain[number])
    for name in FULL:
        pairs = zip(gaussian_weights(ROUNDS), range(1, ROUNDS + 1), strict=True)
        expected = sum(weight * plain[number][name].astype(float) for weight, number in pairs)
        np.testing.assert_allclose(found[ROUNDS][name], expected, rtol=1e-6, atol=1e-8)
        assert np.abs(found[ROUNDS][name] - plain[ROUNDS][name]).max() > 1e-3


def test_low_rank_prompts_are_averaged_as_products_and_cut_to_their_rank(tmp_path):
    found, plain = run(tmp_path / "1", start()), merged(tmp_path / "2", start())
    pairs = zip(gaussian_weights(ROUNDS), range(1, ROUNDS + 1), strict=True)
    mean = sum(
        weight * (plain[number]["ctx.A"].astype(float) @ plain[number]["ctx.B"].astype(float))
        for weight, number in pairs
    )
    last = found[ROUNDS]
    assert {name: a.shape for name, a in last.items()} == {"ctx.A": (4, 1), "ctx.B": (1, 32)}
    u, sigma, vt = np.linalg.svd(mean)
    best = sigma[0] * np.outer(u[:, 0], vt[0])
    np.testing.assert_allclose(last["ctx.A"] @ last["ctx.B"], best, rtol=1e-4, atol=1e-6)


def test_under_a_shared_basis_b_is_averaged(tmp_path):
    arrays = {"ctx.B": np.zeros((1, 8), np.float32)}
    found = run(tmp_path / "1", arrays, rule="shared-basis")
    plain = merged(tmp_path / "2", arrays, rule="shared-basis")
    pairs = zip(gaussian_weights(ROUNDS), range(1, ROUNDS + 1), strict=True)
    expected = sum(weight * plain[number]["ctx.B"].astype(float) for weight, number in pairs)
    np.testing.assert_allclose(found[ROUNDS]["ctx.B"], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("killed_after", [0, 2, 4])
@pytest.mark.parametrize("arrays", [FULL, start()], ids=["full", "lowrank"])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, monkeypatch, arrays, killed_after):
    whole = run(tmp_path / "whole", arrays)
    save = module.save

    def killed(folder, state):
        save(folder, state)
        if state.round == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", arrays)
    resumed = run(tmp_path / "killed", arrays, resume=True)
    equal(resumed[ROUNDS], whole[ROUNDS])
    again = run(tmp_path / "killed", arrays, resume=True)  # a run that is done stays as it is
    equal(again[ROUNDS], whole[ROUNDS])


def test_a_run_of_one_round_or_none_is_its_own_average(tmp_path):
    chosen = replace(task(FULL), averaged=True)
    for number in (0, 1):
        with LocalGrid(client(), SITES, {}) as grid:
            settings = config(tmp_path / str(number), rounds=number)
            state = Rounds(grid, chosen, settings, SITES).run()
        assert state.round == number
    equal(state.arrays, merged(tmp_path / "plain", FULL)[1])


def test_the_average_travels_like_any_prompt(tmp_path):
    found = run(tmp_path, FULL, dtype="float16")[ROUNDS]
    assert all(np.array_equal(a, a.astype(np.float16).astype(np.float32)) for a in found.values())


def test_factors_kept_apart_have_no_average(tmp_path):
    with pytest.raises(ConfigError, match=r"server\.rule = product, or prompt\.form = full"):
        run(tmp_path, start(), rule="factors")
    assert run(tmp_path, FULL, rule="factors")[ROUNDS].keys() == FULL.keys()
