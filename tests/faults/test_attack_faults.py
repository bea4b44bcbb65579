"""Hostile sites as real ClientApps on a task with a known best prompt (F07-F10).

Eleven sites step towards one rank-one prompt, each with its own noise; two are hostile and know
every honest update of the round. Errors are relative distances from the best prompt.
"""

import json

import numpy as np
import pytest

from fedprompt.errors import ConfigError, QuorumError
from fedprompt.settings.run_config import RunConfig
from server.merge.robust import LEAST
from server.merge.rules import RULES
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder.report.doubts import doubts
from server.run_folder.report.run import read_run
from server.run_folder.report.standing_out import standing_out
from tests import round_lines
from tests.sites import client, config, repack, task, unpack

SITES, HOSTILE = 11, (3, 7)
HONEST = tuple(site for site in range(SITES) if site not in HOSTILE)
PULL, NOISE = 0.5, 0.3  # of the way to the best prompt a round; of that way, each site's own
ROUNDS = 8
RULE = RULES["product"]
_rng = np.random.default_rng(5)
BEST = np.outer(_rng.normal(size=4), _rng.normal(size=32))


def dense(arrays):
    return RULE.lift(arrays)["ctx"]


def honest_step(sent, site, server_round):
    """Return what an honest site adds to the dense prompt; everyone can compute it."""
    noise = np.random.default_rng([site, server_round]).normal(size=BEST.shape)
    way = BEST - dense(sent)
    return PULL * (way + NOISE * noise * np.linalg.norm(BEST) / np.sqrt(BEST.size))


def site(step):
    """Return a spoiler that makes a site answer with a step of its own."""

    def spoil(message, reply):
        sent, server_round = unpack(message), message.content["config"]["round"]
        target = dense(sent) + step(sent, server_round)
        return repack(reply, lambda _: RULE.project({"ctx": target}, sent).arrays)

    return spoil


def honest(number):
    return site(lambda sent, r: honest_step(sent, number, r))


def steps(sent, server_round):
    """Return every honest step of a round."""
    return np.stack([honest_step(sent, i, server_round) for i in HONEST])


def jitter(number, server_round, step):
    """Keep two colluders' updates apart, or the gate counts them once."""
    noise = np.random.default_rng([99, number, server_round]).normal(size=step.shape)
    return step * (1 + 1e-4 * noise)


def gaussian(number, sent, r):
    noise = np.random.default_rng([7, number, r]).normal(size=BEST.shape)
    return 10 * np.linalg.norm(BEST) * noise / np.linalg.norm(noise)


ATTACKS = {
    "sign flip": lambda n, sent, r: -10 * honest_step(sent, n, r),
    "gaussian": gaussian,
    "inner product": lambda n, sent, r: jitter(n, r, -10 * steps(sent, r).mean(0)),
    "alie": lambda n, sent, r: jitter(n, r, steps(sent, r).mean(0) - 1.5 * steps(sent, r).std(0)),
}


def run(folder, hostile=None, rounds=ROUNDS, sites=SITES, others=None, **settings):
    """Run a federation in which the hostile sites answer by ``hostile(number, sent, round)``."""
    spoilt = {i: honest(i) for i in range(sites)}
    for number in HOSTILE if hostile else ():
        spoilt[number] = site(lambda sent, r, n=number: hostile(n, sent, r))
    chosen = config(folder, rounds=rounds, **settings)
    with LocalGrid(client(train=spoilt | (others or {})), sites, {}) as grid:
        state = Rounds(grid, task(), chosen, sites).run()
    return state, round_lines.read(folder)


def error(state):
    return float(np.linalg.norm(dense(state.arrays) - BEST) / np.linalg.norm(BEST))


def robust(name):
    """Return settings in which the strategy alone has to bear the attack."""
    return {"strategy": name, "byzantine": len(HOSTILE), "clip_factor": 0.0, "quarantine": 0}


PLAIN = {"strategy": "fedavg", "clip_factor": 0.0, "quarantine": 0}


@pytest.mark.parametrize("attack", list(ATTACKS))
@pytest.mark.parametrize("name", list(LEAST))
def test_F07_a_robust_strategy_bounds_the_attack(tmp_path, name, attack):
    clean, _ = run(tmp_path / "clean", **robust(name))
    state, _ = run(tmp_path / "bad", ATTACKS[attack], **robust(name))
    assert error(clean) < 0.25
    assert error(state) < error(clean) + 0.15  # of the best prompt's norm; ALIE costs the most


@pytest.mark.parametrize("attack", ["sign flip", "gaussian", "inner product"])
def test_F07_the_plain_mean_is_lost(tmp_path, attack):
    """The attacks are real. ALIE is left out: it is made for robust rules, a mean bears it."""
    clean, _ = run(tmp_path / "clean", **PLAIN)
    state, _ = run(tmp_path / "bad", ATTACKS[attack], **PLAIN)
    assert error(clean) < 0.2
    assert error(state) > 1


def test_F07_a_sign_flip_as_long_as_an_honest_step_passes_and_costs_its_weight(tmp_path):
    """Nothing of it is out of bounds: two sites of eleven take back what two others add."""
    state, lines = run(tmp_path, lambda number, sent, r: -honest_step(sent, number, r))
    assert [line["verdicts"] for line in lines[1:]] == [[]] * ROUNDS
    left = 1 - PULL * (len(HONEST) - len(HOSTILE)) / SITES  # of the way, after a round
    assert error(state) == pytest.approx(left**ROUNDS, abs=0.15)


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "multikrum"])
def test_F07_an_honest_run_loses_little_to_caution(tmp_path, name):
    """Krum and Bulyan are left out: they pay with noise, one site of eleven and three."""
    plain, _ = run(tmp_path / "plain", **PLAIN)
    careful, _ = run(tmp_path / "careful", **robust(name))
    assert abs(error(careful) - error(plain)) < 0.05


@pytest.mark.parametrize(
    ("name", "sites"), [("krum", 6), ("multikrum", 6), ("bulyan", 10), ("fedtrimmedavg", 4)]
)
def test_F07_too_few_sites_for_so_many_hostile_ones_are_refused(tmp_path, name, sites):
    needed = LEAST[name](2)
    with pytest.raises(ConfigError, match=f"needs {needed} updates, found {sites}"):
        run(tmp_path, sites=sites, **robust(name))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_F07_a_sample_too_small_is_refused_before_the_first_round(tmp_path):
    with pytest.raises(ConfigError, match=r"found 6; 6 of 11 joined sites.*server\.fraction"):
        run(tmp_path, fraction=0.5, **robust("krum"))


def test_F07_replies_too_few_in_a_round_end_it_with_the_reason(tmp_path):
    def gone(message, reply):
        raise RuntimeError("no power")

    others = dict.fromkeys(range(5), gone)
    with pytest.raises(
        QuorumError, match=r"krum with server\.byzantine = 2 needs 7 updates, found 6"
    ):
        run(tmp_path, others=others, **robust("krum"))
    assert round_lines.read(tmp_path)[-1]["round"] == 0


def test_F07_factors_are_refused():
    chosen = {f"server.{key}": value for key, value in robust("fedmedian").items()}
    with pytest.raises(ConfigError, match="judge A and B apart"):
        RunConfig.parse(chosen | {"server.rule": "factors"})


@pytest.mark.parametrize("name", list(LEAST))
def test_F07_no_site_buys_weight_by_its_count(tmp_path, name):
    def counting(number):
        def spoil(message, reply):
            reply = honest(number)(message, reply)
            reply["metrics"]["num-examples"] = 1 + number
            return reply

        return spoil

    others = {i: counting(i) for i in range(SITES)}
    few, _ = run(tmp_path / "few", rounds=2, others=others, **robust(name))
    many, _ = run(tmp_path / "many", rounds=2, **robust(name))
    assert few.arrays["ctx.B"].tobytes() == many.arrays["ctx.B"].tobytes()


def test_F06_uniform_weights_make_counts_idle_but_not_unchecked(tmp_path):
    settings = {"rounds": 1, "weighting": "uniform"}
    one, lines = run(tmp_path / "1", others={0: _counted(0, 1)}, **settings)
    many, _ = run(tmp_path / "2", others={0: _counted(0, 90)}, **settings)
    assert one.arrays["ctx.B"].tobytes() == many.arrays["ctx.B"].tobytes()
    assert lines[1]["accepted"] == list(range(SITES))
    weighted, _ = run(tmp_path / "3", rounds=1, others={0: _counted(0, 1)})
    assert one.arrays["ctx.B"].tobytes() != weighted.arrays["ctx.B"].tobytes()
    _, refused = run(tmp_path / "4", others={0: _counted(0, -1)}, **settings)
    assert [(v["site"], v["reasons"]) for v in refused[1]["verdicts"]] == [(0, ["bad-count"])]


def _counted(number, count):
    def spoil(message, reply):
        reply = honest(number)(message, reply)
        reply["metrics"]["num-examples"] = count
        return reply

    return spoil


def test_F06_a_loss_kept_at_the_site_is_no_fault(tmp_path):
    def silent(message, reply):
        reply = honest(0)(message, reply)
        del reply["metrics"]["loss"]
        return reply

    _, lines = run(tmp_path, rounds=2, others={0: silent})
    assert lines[1]["accepted"] == list(range(SITES))
    assert [line["loss"] for line in lines[1:]] == [1.0, 0.5]  # of the ten that tell
    _, nobody = run(tmp_path / "none", rounds=1, others=dict.fromkeys(range(SITES), _mute))
    assert nobody[1]["loss"] is None


def _mute(message, reply):
    del reply["metrics"]["loss"]
    return reply


def flipped(number, sent, r):
    """Stand for false labels: an honest pull towards a prompt that names every class wrong."""
    noise = np.random.default_rng([number, r]).normal(size=BEST.shape)
    way = -BEST - dense(sent)
    return PULL * (way + NOISE * noise * np.linalg.norm(BEST) / np.sqrt(BEST.size))


@pytest.mark.parametrize("settings", [{}, robust("fedtrimmedavg"), robust("multikrum")])
def test_F08_flipped_labels_are_named_and_honest_sites_are_not(tmp_path, settings):
    _, lines = run(tmp_path, flipped, **settings)
    assert sorted(standing_out(read_run(tmp_path).records)) == list(HOSTILE)
    (told,) = [text for text in doubts(read_run(tmp_path)) if "pulling away" in text]
    assert all(f"site {number} (" in told for number in HOSTILE)
    assert not any(f"site {number} (" in told for number in HONEST)
    assert set(lines[1]["outliers"]["3"]) == {"distance", "cosine"}


@pytest.mark.parametrize("settings", [{}, robust("fedtrimmedavg"), robust("multikrum")])
def test_F08_nobody_is_named_in_an_honest_run(tmp_path, settings):
    run(tmp_path, **settings)
    assert doubts(read_run(tmp_path)) == []


def test_F08_flipped_labels_cost_little_under_a_robust_strategy(tmp_path):
    clean, _ = run(tmp_path / "clean", **robust("fedtrimmedavg"))
    state, _ = run(tmp_path / "bad", flipped, **robust("fedtrimmedavg"))
    plain, _ = run(tmp_path / "plain", flipped, **PLAIN)
    assert error(state) < error(clean) + 0.15
    assert error(plain) > error(state) + 0.15


COLUMN = 31  # a number of the prompt that honest sites have no use for


def planted(number, sent, r):
    """Plant a trigger by model replacement: the honest step, and a far one where nobody looks."""
    step = jitter(number, r, honest_step(sent, number, r))
    step[:, COLUMN] += 30 * np.linalg.norm(BEST)
    return step


def test_F09_a_norm_cap_bounds_what_a_backdoor_plants(tmp_path):
    """How far the trigger moved the prompt: with and without the cap, and under a median."""

    def moved(name, **settings):
        state, lines = run(tmp_path / name, planted, rounds=1, **settings)
        return float(np.linalg.norm(dense(state.arrays)[:, COLUMN])), lines

    free, _ = moved("free", clip_factor=0.0, clip_norm=0.0)
    cap = 0.05 * np.linalg.norm(BEST)
    capped, lines = moved("capped", clip_factor=0.0, clip_norm=cap)
    median, _ = moved("median", **robust("fedmedian"))
    reasons = {v["site"]: v["reasons"] for v in lines[1]["verdicts"]}
    assert all(reasons[n] in (["norm"], ["clipped"]) for n in HOSTILE)
    assert free > 2 * np.linalg.norm(BEST)
    assert capped <= cap
    assert median < 0.5 * np.linalg.norm(BEST)


def copied(number):
    """Return a spoiler that sends the very factors of site 0."""
    return honest(0)


def test_F10_copies_are_named_and_count_once(tmp_path):
    twins = {5: copied(5), 9: copied(9)}
    state, lines = run(tmp_path / "copies", rounds=4, others=twins)
    for line in lines[1:]:
        assert [(v["site"], v["reasons"]) for v in line["verdicts"]] == [
            (5, ["copied"]),
            (9, ["copied"]),
        ]
        assert line["strikes"] == {}
        assert line["quarantined"] == []
    told = " ".join(doubts(read_run(tmp_path / "copies")))
    assert "site 5 (4 rounds), site 9 (4 rounds)" in told
    without, _ = run(tmp_path / "without", rounds=4, others={5: _raise, 9: _raise}, quarantine=0)
    assert state.arrays["ctx.B"].tobytes() == without.arrays["ctx.B"].tobytes()


def _raise(message, reply):
    raise RuntimeError("gone")


def test_F10_a_free_rider_is_named_without_a_strike(tmp_path):
    def lazy(message, reply):
        return repack(reply, lambda _: unpack(message))

    _, lines = run(tmp_path, rounds=3, others={4: lazy, 6: lazy})
    for line in lines[1:]:
        assert [(v["site"], v["reasons"]) for v in line["verdicts"]] == [
            (4, ["unchanged"]),
            (6, ["unchanged"]),
        ]
        assert line["accepted"] == list(range(SITES))
        assert line["strikes"] == {}
    assert "site 4 (3 rounds), site 6 (3 rounds)" in " ".join(doubts(read_run(tmp_path)))


def test_F10_one_key_a_node_and_one_node_a_site(tmp_path):
    """A second node that claims a site's number is refused at the door."""

    def claim(message, reply):
        reply["identity"]["partition"] = 0
        return reply

    with LocalGrid(client(query={2: claim}), 4, {}) as grid:
        Rounds(grid, task(), config(tmp_path, rounds=1), 3).run()
    first = round_lines.read(tmp_path)[0]
    assert first["joined"] == [0, 1, 3]
    assert [(v["site"], v["reasons"]) for v in first["refused"]] == [(0, ["duplicate"])]


def broken(message, reply):
    reply["metrics"]["num-examples"] = -1
    return reply


QUARANTINE = {"quarantine": 2, "quarantine_rounds": 3}


def test_a_site_with_too_many_strikes_sits_out_and_comes_back(tmp_path):
    _, lines = run(tmp_path, rounds=9, others={4: broken}, **QUARANTINE)
    asked = [4 in line["asked"] for line in lines[1:]]
    #                struck: 1     2     sits out             1 left, struck: sits out again
    assert asked == [True, True, False, False, False, True, False, False, False]
    assert [line["quarantined"] for line in lines] == [
        [],
        [],
        [4],
        [4],
        [4],
        [4],
        [4],
        [4],
        [4],
        [4],
    ]
    assert lines[-1]["strikes"] == {"4": 2}
    scored = ["4" in line["sites"] for line in lines]
    assert scored == [True, True, False, False, False, False, False, False, False, False]
    assert any("In quarantine" in text and "site 4" in text for text in doubts(read_run(tmp_path)))


def test_a_quarantine_of_nothing_never_comes(tmp_path):
    _, lines = run(tmp_path, rounds=5, others={4: broken}, quarantine=0)
    assert all(4 in line["asked"] for line in lines[1:])
    assert lines[-1]["strikes"] == {"4": 5}


@pytest.mark.parametrize("stop", range(1, 9))
def test_F21_a_quarantine_outlives_the_server(tmp_path, stop):
    whole, lines = run(tmp_path / "whole", rounds=9, others={4: broken}, **QUARANTINE)
    settings = {"others": {4: broken}, **QUARANTINE}
    run(tmp_path / "parts", rounds=stop, **settings)
    state, resumed = run(tmp_path / "parts", rounds=9, resume=True, **settings)
    assert state.conduct == whole.conduct
    for name, array in whole.arrays.items():
        assert array.tobytes() == state.arrays[name].tobytes()
    keys = ("asked", "strikes", "quarantined", "prompt", "outliers")
    told = [json.dumps({k: line.get(k) for k in keys}) for line in lines]
    assert told == [json.dumps({k: line.get(k) for k in keys}) for line in resumed]


def test_nobody_left_to_ask_ends_the_run_with_their_names(tmp_path):
    others = dict.fromkeys(range(4), broken)
    settings = {"quarantine": 1, "retries": 1, "quorum": 0.1}
    with pytest.raises(QuorumError, match=r"no site is left to ask.*quarantine: site 0, site 1"):
        run(tmp_path, sites=4, others=others, **settings)


def test_the_others_go_on_when_a_quarantine_takes_most(tmp_path):
    others = dict.fromkeys(range(9), broken)
    _, lines = run(tmp_path, rounds=4, others=others, quarantine=1, quorum=0.1)
    assert [line["asked"] for line in lines[2:]] == [[9, 10]] * 3
