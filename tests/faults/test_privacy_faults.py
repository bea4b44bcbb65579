"""The privacy budget holds over crashes, resumptions and damage (F30), and no weight escapes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import Context, MetricRecord, RecordDict
from scipy.stats import norm

from fedprompt.artefact import Artefact
from fedprompt.errors import ConfigError, PrivacyError, StorageError
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.wire import to_array_record
from server import app as server_app
from server.merge.privacy import ledger
from server.merge.privacy.mechanism import Mechanism
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder.checkpoint import load_latest
from tests import round_lines
from tests.pictures import image_folder
from tests.sites import client, config, start, task, unpack

SITES = 4
DELTA = 1e-5
NOISE = 4.0
EPSILON = {2: 1.39, 3: 1.75}  # of so many releases, rounded up


def run(folder, sites=SITES, arrays=None, privacy=None, train=None, **settings):
    """Run on a grid; return the last state and the record."""
    told, chosen = task(arrays), config(folder, **settings)
    private = PrivacyConfig(**({"noise_multiplier": NOISE, "epsilon": 100.0} | (privacy or {})))
    with LocalGrid(client(train=train), sites, {}) as grid:
        mechanism = Mechanism(private, chosen, told.run)
        state = Rounds(grid, told, chosen, sites, mechanism).run()
    return state, round_lines.read(folder)


def releases(folder):
    return ledger.read(folder / "privacy.jsonl")


def committed(folder, arrays=None):
    return load_latest(folder / "checkpoints", task(arrays).run).round


def independent(count):
    """Compose the releases in one event, which is not how the accountant of the run does it."""
    accountant = PLDAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(NOISE), count))
    return accountant.get_epsilon(DELTA)


def exact_delta(epsilon, count):
    """Return delta of composed Gaussian releases (Balle and Wang, arXiv 1805.06530, theorem 8)."""
    mu = np.sqrt(count) / NOISE
    return norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def test_F30_epsilon_is_that_of_an_independent_computation(tmp_path):
    _, lines = run(tmp_path, rounds=4)
    told = [line["epsilon"] for line in lines[1:]]
    # one PLD, two ways to compose it: equal up to the discretisation (1e-4 a release)
    assert told == pytest.approx([independent(count) for count in (1, 2, 3, 4)], abs=1e-3)
    for count, epsilon in enumerate(told, 1):
        # and it is the true one: an upper bound up to the library's own rounding, not a loose one
        assert exact_delta(epsilon + 1e-6, count) <= DELTA < exact_delta(epsilon - 1e-3, count)


def test_F30_a_spent_budget_stops_before_the_release(tmp_path):
    with pytest.raises(
        PrivacyError, match=r"release 3 would cost .* budget .* is 1\.4; it was not"
    ):
        run(tmp_path, rounds=4, privacy={"epsilon": 1.4})
    assert committed(tmp_path) == 2
    assert [entry.round for entry in releases(tmp_path)] == [1, 2]
    assert round_lines.read(tmp_path)[-1]["epsilon"] <= 1.4


def test_F30_no_site_works_for_a_round_that_cannot_be_released(tmp_path):
    asked = []

    def note(message, reply):
        asked.append(message.content["config"]["round"])
        return reply

    with pytest.raises(PrivacyError):
        run(tmp_path, rounds=4, privacy={"epsilon": 1.4}, train={0: note})
    assert asked == [1, 2]


def test_F30_a_larger_budget_goes_on(tmp_path):
    with pytest.raises(PrivacyError):
        run(tmp_path, rounds=4, privacy={"epsilon": 1.4})
    state, lines = run(tmp_path, rounds=4, resume=True)
    assert state.round == 4
    assert lines[-1]["epsilon"] == pytest.approx(independent(4), abs=1e-3)


SCRIPT = """
import os, sys
from pathlib import Path
from server.rounds import loop
from server.rounds.local_grid import LocalGrid
from fedprompt.settings.privacy import PrivacyConfig
from server.merge.privacy.mechanism import Mechanism
from server.rounds.loop import Rounds
from tests.sites import client, config, task

def die(message, reply):
    if message.content["config"]["round"] == 2:
        os.kill(os.getpid(), 9)
    return reply

settings = config(sys.argv[1], rounds=4)
private = PrivacyConfig(noise_multiplier=4.0, epsilon=100.0)
with LocalGrid(client(evaluate={1: die}), 4, {}) as grid:
    told = task()
    Rounds(grid, told, settings, 4, Mechanism(private, settings, told.run)).run()
"""


def test_F30_a_kill_9_before_the_commit_is_counted_twice(tmp_path):
    """A site kills the server while it scores round 2: noised, seen, and never committed."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    died = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert committed(tmp_path) == 1
    assert [entry.round for entry in releases(tmp_path)] == [1, 2]
    with pytest.raises(PrivacyError, match="release 4 would cost"):
        run(tmp_path, rounds=4, resume=True, privacy={"epsilon": EPSILON[3]})
    assert committed(tmp_path) == 2
    assert [entry.round for entry in releases(tmp_path)] == [1, 2, 2]


class Killed(BaseException):
    """Stand for a kill: nothing may catch it."""


def test_F30_a_kill_before_the_noise_is_counted_too(tmp_path, monkeypatch):
    def die(mean, deviation):
        assert len(releases(tmp_path)) == 1  # the line is there before anything is drawn
        raise Killed

    monkeypatch.setattr("server.merge.privacy.mechanism.add_noise", die)
    with pytest.raises(Killed):
        run(tmp_path, rounds=1)
    monkeypatch.undo()
    _, lines = run(tmp_path, rounds=1, resume=True)
    assert lines[-1]["epsilon"] == pytest.approx(independent(2), abs=1e-3)


def test_F30_a_disk_that_cannot_take_the_ledger_releases_nothing(tmp_path, monkeypatch):
    def full(path, data):
        raise StorageError(f"{path} could not be written: No space left on device")

    monkeypatch.setattr(ledger, "write_atomic", full)
    with pytest.raises(StorageError, match="No space left"):
        run(tmp_path, rounds=1)
    assert committed(tmp_path) == 0


def _cut(data):
    return data[:-20]


def _flip(data):
    return data.replace(b'"round":1', b'"round":7')


def _drop_first(data):
    return b"".join(data.splitlines(keepends=True)[1:])


def _swap(data):
    first, second, *rest = data.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def _drop_last(data):
    return b"".join(data.splitlines(keepends=True)[:-1])


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _drop_first, _swap, _drop_last, lambda _: b"", lambda _: b"\xff\n"]
)
def test_F30_a_damaged_ledger_refuses_and_changes_nothing(tmp_path, damage):
    run(tmp_path, rounds=2)
    path = tmp_path / "privacy.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(PrivacyError, match=r"is damaged|misses round"):
        run(tmp_path, rounds=3, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_F30_a_lost_ledger_refuses(tmp_path):
    run(tmp_path, rounds=1)
    (tmp_path / "privacy.jsonl").unlink()
    with pytest.raises(PrivacyError, match="misses round 1, which was committed"):
        run(tmp_path, rounds=2, resume=True)


def test_F30_overwriting_a_run_does_not_forget_what_it_released(tmp_path):
    run(tmp_path, rounds=2)
    _, lines = run(tmp_path, rounds=1, overwrite=True, seed=1)
    assert len(releases(tmp_path)) == 3
    assert lines[-1]["epsilon"] == pytest.approx(independent(3), abs=1e-3)


def _still(message, reply):
    """Answer with the arrays as they came."""
    reply["arrays"] = to_array_record(unpack(message), "float32")
    return reply


def _shifted(size):
    """Answer with every entry moved by ``size``."""

    def spoil(message, reply):
        moved = {name: array + np.float32(size) for name, array in unpack(message).items()}
        reply["arrays"] = to_array_record(moved, "float32")
        return reply

    return spoil


WIDTH = 5000


def _change(folder, arrays, **settings):
    """Run one round with rule factors, which merges the arrays as they are."""
    state, _ = run(folder, arrays=arrays, rounds=1, rule="factors", evaluate_every=0, **settings)
    return {name: state.arrays[name].astype(np.float64) - arrays[name] for name in arrays}


def test_F30_the_merged_prompt_carries_the_noise_it_should(tmp_path):
    """Sites that change nothing leave pure noise: N(0, (noise clip / sites)^2) on 20,001 entries.

    Its standard deviation is estimated to 1 / sqrt(2 n) = 0.5 %, its mean to sigma / sqrt(n). Both
    bounds are 6.5 standard errors: a sound mechanism fails them once in 6e9 runs.
    """
    arrays = {"scale": np.zeros((), np.float32), "ctx": np.zeros((4, WIDTH), np.float32)}
    noise = _change(
        tmp_path, arrays, privacy={"clip_norm": 0.5}, train=dict.fromkeys(range(SITES), _still)
    )
    sigma, count = NOISE * 0.5 / SITES, 4 * WIDTH
    assert noise["ctx"].std() == pytest.approx(sigma, rel=6.5 / np.sqrt(2 * count))
    assert abs(noise["ctx"].mean()) < 6.5 * sigma / np.sqrt(count)
    assert 0 < abs(float(noise["scale"])) < 6.5 * sigma  # 0-d arrays are noised as well


def test_F30_all_tensors_are_clipped_jointly_scalars_too(tmp_path):
    """All sites push every entry by 3: the mean is cut to clip_norm over all entries together."""
    arrays = {"scale": np.zeros((), np.float32), "ctx": np.zeros((4, WIDTH), np.float32)}
    quiet = {"noise_multiplier": 0.1, "epsilon": 100.0, "clip_norm": 0.5}
    pushed = {site: _shifted(3 + site * 1e-3) for site in range(SITES)}  # equal ones are copies
    change = _change(tmp_path, arrays, privacy=quiet, train=pushed)
    entry = 0.5 / np.sqrt(4 * WIDTH + 1)
    sigma = 0.1 * 0.5 / SITES
    # the mean over 20,000 entries has a standard error of sigma / sqrt(n); 6.5 of them
    assert change["ctx"].mean() == pytest.approx(entry, abs=6.5 * sigma / np.sqrt(4 * WIDTH))
    assert abs(float(change["scale"]) - entry) < 6.5 * sigma  # far from the 3 it was pushed by


def test_F30_one_seed_does_not_foretell_the_noise(tmp_path):
    one, _ = run(tmp_path / "1", rounds=1)
    two, _ = run(tmp_path / "2", rounds=1)
    assert one.arrays["ctx.B"].tobytes() != two.arrays["ctx.B"].tobytes()


@pytest.mark.parametrize("claim", [1, 100])
def test_F06_weights_do_not_count_under_privacy(tmp_path, monkeypatch, claim):
    """A site that claims all the examples moves the average as one that claims a single one."""
    monkeypatch.setattr("server.merge.privacy.mechanism.add_noise", lambda mean, deviation: mean)

    def claims(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | {"num-examples": claim})
        return reply

    state, _ = run(tmp_path / "claims", rounds=1, rule="factors", train={0: claims})
    plain, _ = run(tmp_path / "plain", rounds=1, rule="factors")
    for name, array in plain.arrays.items():
        assert state.arrays[name].tobytes() == array.tobytes()


def test_F30_one_site_moves_the_average_by_its_share_of_the_clip_at_most(tmp_path, monkeypatch):
    """The neighbours: the same federation with one site's update replaced by zero.

    Its norm is huge, so that the round's median norm, the clip factor's measure, differs too.
    """
    monkeypatch.setattr("server.merge.privacy.mechanism.add_noise", lambda mean, deviation: mean)
    found = []
    for spoil in (_shifted(1e3), _still):
        folder = tmp_path / spoil.__name__
        settings = {"rounds": 1, "rule": "factors", "train": {2: spoil}, "clip_factor": 2.0}
        found.append(run(folder, privacy={"clip_norm": 0.5}, **settings)[0].arrays)
    moved = [found[0][n].astype(np.float64) - found[1][n] for n in found[0]]
    total = np.sqrt(sum(np.sum(part**2) for part in moved))
    assert total == pytest.approx(0.5 / SITES, rel=1e-4)  # float32 arrays


def test_F30_a_silent_site_counts_as_a_change_of_zero(tmp_path, monkeypatch):
    monkeypatch.setattr("server.merge.privacy.mechanism.add_noise", lambda mean, deviation: mean)

    def fail(message, reply):
        raise RuntimeError("no such file")

    silent, lines = run(tmp_path / "fail", rounds=1, rule="factors", train={1: fail})
    still, _ = run(tmp_path / "still", rounds=1, rule="factors", train={1: _still})
    assert lines[1]["accepted"] == [0, 2, 3]
    for name, array in still.arrays.items():
        assert silent.arrays[name].tobytes() == array.tobytes()


def test_F30_a_round_in_which_all_abstain_is_noised_all_the_same(tmp_path):
    def abstain(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | {"num-examples": 0})
        return reply

    state, _ = run(tmp_path, rounds=1, train=dict.fromkeys(range(SITES), abstain))
    assert state.arrays["ctx.B"].any()
    assert len(releases(tmp_path)) == 1


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "fedyogi", "fedavgm"])
@pytest.mark.parametrize("rule", ["product", "shared-basis", "factors"])
def test_F30_every_mean_and_rule_takes_the_noised_average(tmp_path, strategy, rule):
    arrays = {"ctx.B": start()["ctx.B"]} if rule == "shared-basis" else start()
    state, lines = run(tmp_path, arrays=arrays, rounds=2, strategy=strategy, rule=rule)
    assert state.round == 2
    assert all(np.isfinite(array).all() for array in state.arrays.values())
    assert lines[-1]["epsilon"] == pytest.approx(independent(2), abs=1e-3)


@pytest.mark.parametrize("strategy", ["fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"])
def test_F30_a_strategy_that_does_not_average_is_refused(strategy):
    chosen = {"server.strategy": strategy, "server.byzantine": 1}
    with pytest.raises(ConfigError, match=f"{strategy} under privacy.noise_multiplier"):
        RunConfig.parse(chosen | {"privacy.noise_multiplier": 1.0})


def test_F30_a_try_below_quorum_costs_nothing(tmp_path, monkeypatch):
    calls = []

    def fail_once(message, reply):
        calls.append(message)
        if len(calls) <= 3:
            raise RuntimeError("no such file")
        return reply

    _, lines = run(tmp_path, rounds=1, train=dict.fromkeys((0, 1, 2), fail_once))
    assert lines[1]["attempt"] == 1
    assert len(releases(tmp_path)) == 1


@pytest.mark.slow
def test_F30_the_whole_command_stops_with_its_code_and_leaves_the_artefact(tmp_path, monkeypatch):
    """A real ServerApp and real sites: the artefact of the last committed round says it all."""
    from client.app import app as client_app

    settings = defaults() | {
        "backbone.name": "embedded-cnn",
        "data.source": str(image_folder(tmp_path / "photos", ("blue", "green"), 12)),
        "data.clients": 2,
        "data.partitioner": "iid",
        "server.rounds": 3,
        "server.output": str(tmp_path / "run"),
        "privacy.noise_multiplier": NOISE,
        "privacy.epsilon": EPSILON[2],
    }
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    with LocalGrid(client_app, 2, settings) as grid, pytest.raises(PrivacyError) as stopped:
        server_app.app(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))
    assert stopped.value.exit_code == 13
    found = Artefact.load(tmp_path / "run" / "artefact").metadata
    assert found["round"] == 2
    assert found["privacy"]["epsilon"] == pytest.approx(independent(2), abs=1e-3)
    assert found["privacy"]["delta"] == DELTA
    assert found["privacy"]["accountant"].startswith("dp-accounting 0.6")
    assert found["privacy"]["releases"] == 2
