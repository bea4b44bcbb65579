"""Gather a start from toy sites; spoilt replies are refused as a round's are."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedprompt.errors import ConfigError, QuorumError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import to_array_record
from server.gate.verdict import Accepted
from server.rounds import loop
from server.rounds.federation import Description, Task
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.rounds.spt_start import check, merged
from tests import round_lines
from tests.sites import IDENTITY, client, config, counts, in_turn, says, sends

SITES, LENGTH, WIDTH = 4, 3, 8
DRAWN = PromptState({f"visual.{i}": np.full((LENGTH, WIDTH), 9) for i in range(2)})
TASK = Task(DRAWN, IDENTITY, lambda _: Description(0.5), "run", asks_start=True)


def told(partition: int) -> dict[str, np.ndarray]:
    """Return a site's centres: three groups far from each other, and a little apart by site."""
    rng = np.random.default_rng(partition)
    groups = 10.0 * np.eye(LENGTH, WIDTH)[rng.permutation(LENGTH)]
    return {
        name: (groups + rng.normal(scale=0.1, size=groups.shape) + i).astype(np.float32)
        for i, name in enumerate(DRAWN)
    }


def app(spoilt=None, images=(10, 20, 30, 40), asked=None):
    """Return the sites; what each is asked goes into ``asked``."""

    def noting(partition):
        def spoil(message: Message, reply: RecordDict) -> RecordDict:
            if asked is not None:
                asked.append((partition, dict(message.content["config"])))
            return reply

        return spoil

    spoilers = {
        site: in_turn(noting(site), counts(count), (spoilt or {}).get(site, in_turn()))
        for site, count in enumerate(images)
    }
    return client(centres=lambda site: to_array_record(told(site), "float32"), start=spoilers)


def run(folder, found, **settings):
    settings = {"rounds": 1, "retries": 0, **settings}
    with LocalGrid(found, SITES, {}) as grid:
        state = Rounds(grid, TASK, config(folder, **settings), SITES).run()
    return state, round_lines.read(folder)


def start(folder, found, **settings):
    state, lines = run(folder, found, rounds=0, **settings)
    return state.arrays, lines[0]


def test_the_prompt_starts_at_the_means_of_the_sites_groups(tmp_path) -> None:
    arrays, line = start(tmp_path, app())
    assert line["start_sites"] == [0, 1, 2, 3]
    assert line["start_verdicts"] == []
    assert line["start_bytes_up"] > SITES * 2 * LENGTH * WIDTH * 4
    weights = np.repeat([10, 20, 30, 40], LENGTH)
    for i, name in enumerate(DRAWN):
        points = np.concatenate([told(p)[name] for p in range(SITES)]).astype(np.float64)
        group = (points - i).argmax(1)
        expected = [
            np.average(points[group == g], axis=0, weights=weights[group == g])
            for g in range(LENGTH)
        ]
        order = (arrays[name] - i).argmax(1)
        assert sorted(order) == [0, 1, 2]
        np.testing.assert_allclose(arrays[name], np.array(expected)[order], rtol=1e-2, atol=5e-3)


def test_sites_are_told_the_run_and_how_many_are_asked(tmp_path) -> None:
    asked: list[tuple[int, dict]] = []
    start(tmp_path, app(asked=asked))
    assert sorted(partition for partition, _ in asked) == [0, 1, 2, 3]
    assert {config["run"] for _, config in asked} == {"run"}
    assert {(config["round"], config["sites"]) for _, config in asked} == {(0, 4)}


def with_arrays(change):
    return sends(lambda arrays: {name: change(array) for name, array in arrays.items()})


def with_names(_: Message, reply: RecordDict) -> RecordDict:
    reply["names"] = ConfigRecord({"file": "smith.png"})
    return reply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (with_arrays(lambda a: np.full_like(a, np.nan)), "not-finite"),
        (with_arrays(lambda a: a[:2]), "wrong-shape"),
        (with_arrays(lambda a: a * 1e4), "norm"),
        (says(receipt=7), "identity"),
        (counts(-1), "bad-count"),
        (with_names, "malformed"),
    ],
)
def test_a_spoilt_reply_is_refused_and_named(tmp_path, spoil, reason: str) -> None:
    arrays, line = start(tmp_path, app({1: spoil}))
    assert line["start_sites"] == [0, 2, 3]
    (verdict,) = line["start_verdicts"]
    assert (verdict["site"], verdict["accepted"], verdict["reasons"]) == (1, False, [reason])
    assert line["strikes"] == {"1": 1}
    assert all(np.abs(array).max() < 15 for array in arrays.values())


def test_a_count_above_the_enrolled_one_is_cut(tmp_path) -> None:
    _, line = start(tmp_path, app(images=(10, 10**9, 30, 40)))
    (verdict,) = line["start_verdicts"]
    assert verdict["reasons"] == ["capped"]
    assert line["start_sites"] == [0, 1, 2, 3]


def test_a_site_without_images_abstains(tmp_path) -> None:
    arrays, line = start(tmp_path, app(images=(10, 20, 0, 40)))
    assert line["start_sites"] == [0, 1, 3]
    assert np.isfinite(arrays["visual.0"]).all()


def test_too_few_replies_end_the_run_with_the_reasons(tmp_path) -> None:
    bad = with_arrays(lambda a: np.full_like(a, np.inf))
    with pytest.raises(QuorumError, match=r"did not suffice for a start in 2 tries.*not-finite"):
        start(tmp_path, app(dict.fromkeys(range(3), bad)), retries=1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_nobody_with_images_is_no_start(tmp_path) -> None:
    with pytest.raises(QuorumError, match="no site has images to start from"):
        start(tmp_path, app(images=(0, 0, 0, 0)))


def test_a_resumed_run_asks_nobody_again(tmp_path, monkeypatch) -> None:
    whole, _ = run(tmp_path / "whole", app(), rounds=3)
    asked: list[tuple[int, dict]] = []
    original = loop.save

    def killed(folder, state):
        original(folder, state)
        if state.round == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", app(asked=asked), rounds=3)
    assert len(asked) == SITES
    resumed, lines = run(tmp_path / "cut", app(asked=asked), rounds=3, resume=True)
    assert len(asked) == SITES
    assert lines[0]["start_sites"] == [0, 1, 2, 3]
    for name, array in whole.arrays.items():
        assert array.tobytes() == resumed.arrays[name].tobytes()


def test_workers_change_no_byte(tmp_path) -> None:
    one, _ = start(tmp_path / "1", app())
    many, _ = start(tmp_path / "4", app(), workers=4)
    assert all(one[name].tobytes() == many[name].tobytes() for name in one)


@pytest.mark.parametrize("far", [5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_centres_that_lie_far_out_do_not_draw_the_start_to_themselves(seed: int, far: int) -> None:
    """K-means would give each a cluster of its own, and the other seven sites' fewer."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(8, 48))
    sites = [groups + 0.3 * rng.normal(size=groups.shape) for _ in range(7)]
    sites.append(far * rng.normal(size=groups.shape))
    updates = [Accepted(n, n, {"visual.0": points}, 100, None) for n, points in enumerate(sites)]
    (found,) = merged(updates, 8, seed).values()
    honest = np.concatenate(sites[:7])
    apart = np.linalg.norm(found[:, None] - honest, axis=-1).min(1)
    assert (apart > 5).sum() <= 1  # its share
    longest = 1.5 * np.median(np.linalg.norm(honest, axis=-1))
    assert np.linalg.norm(found, axis=-1).max() < 1.1 * longest


def test_few_distinct_centres_are_repeated() -> None:
    update = {"visual.0": np.ones((3, 2))}
    found = merged([Accepted(0, 0, update, 5, None), Accepted(1, 1, update, 1, None)], 3, 0)
    np.testing.assert_array_equal(found["visual.0"], np.ones((3, 2)))


@pytest.mark.parametrize(
    ("prompt", "server", "privacy", "told"),
    [
        ({"form": "lowrank"}, {}, {}, "prompt.form = lowrank"),
        ({"personal": "local"}, {}, {}, "prompt.personal = local"),
        ({"public": "photos"}, {}, {}, "prompt.public = 'photos'"),
        ({}, {"secure_aggregation": True}, {}, "centres are not masked"),
        ({}, {}, {"noise_multiplier": 1.0}, "the ledger does not count"),
    ],
)
def test_settings_that_break_a_promise_are_refused(
    prompt: dict, server: dict, privacy: dict, told: str
) -> None:
    asked = prompt_config(**{"method": "spt", "start_noise": 0.1, **prompt})
    with pytest.raises(ConfigError, match=told):
        check(asked, ServerConfig(**server), PrivacyConfig(**privacy))
    silent = asked.model_copy(update={"start_noise": 0.0})
    check(silent, ServerConfig(**server), PrivacyConfig(**privacy))
