"""Rule `fresh-basis` over whole rounds: protected, robust and resumed it is the plain mean."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from client.reply.secure_aggregation import secured
from fedprompt.backbone.load import shared_backbone
from fedprompt.basis import columns
from fedprompt.secure_sum import levels, step
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.wire import from_array_record, to_array_record
from server.merge.privacy import mechanism as privacy
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.rounds.task_builder import Tuning
from tests import round_lines
from tests.enrolled import invitation, rule, send, site
from tests.pictures import image_folder
from tests.sites import client, config, repack, task

SITES, WIDTH = 7, 32
START = {"ctx": np.random.default_rng(7).normal(size=(4, WIDTH)).astype(np.float32)}


def learns(message, honest):
    """Answer with an update that follows from site and round, as a real one does."""
    metrics, settings = honest["metrics"], message.content["config"]
    rng = np.random.default_rng([int(metrics["num-examples"]), settings["round"]])
    update = {"ctx.B": rng.normal(scale=0.1, size=(1, WIDTH)).astype(np.float32)}
    return repack(honest, lambda _: update)


def run(folder, train=None, hidden=None, **settings):
    defaults = {"rule": "fresh-basis", "weighting": "uniform", "clip_norm": 5.0, "rounds": 3}
    server = config(folder, **(defaults | settings))
    told = replace(task(START), reply={"ctx.B": np.zeros((1, WIDTH), np.float32)})
    agreed = {f"server.{key}": value for key, value in server.model_dump().items()}
    mechanism = None
    if hidden:
        agreed |= {f"privacy.{key}": value for key, value in hidden.model_dump().items()}
        mechanism = privacy.Mechanism(hidden, server, told.run)
    sites = client(dict.fromkeys(range(SITES), learns) | (train or {}), mods=[secured])
    with LocalGrid(sites, SITES, agreed) as grid:
        state = Rounds(grid, told, server, SITES, mechanism).run()
    return state, round_lines.read(folder)


def change(state):
    return state.arrays["ctx"].astype(float) - START["ctx"]


def test_each_round_adds_one_direction(tmp_path):
    ranks = [np.linalg.matrix_rank(change(run(tmp_path / str(n), rounds=n)[0]), rtol=1e-4)
             for n in (0, 1, 2, 4, 6)]  # fmt: skip
    assert ranks == [0, 1, 2, 4, 4]


def test_a_secure_sum_is_the_plain_mean(tmp_path):
    plain, _ = run(tmp_path / "plain")
    secure, lines = run(tmp_path / "secure", secure_aggregation=True)
    error = 3 * step(5.0, levels(SITES)) + 1e-6  # of three rounds
    np.testing.assert_allclose(secure.arrays["ctx"], plain.arrays["ctx"], atol=error, rtol=0)
    assert np.abs(change(plain)).max() > 100 * error
    assert lines[-1]["accepted"] == list(range(SITES))


def test_without_noise_privacy_is_the_plain_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(privacy, "add_noise", lambda mean, _: mean)
    hidden = PrivacyConfig(noise_multiplier=100.0, clip_norm=5.0)
    plain, _ = run(tmp_path / "plain")
    for secure in (False, True):
        found, _ = run(tmp_path / f"{secure}", hidden=hidden, secure_aggregation=secure)
        np.testing.assert_allclose(found.arrays["ctx"], plain.arrays["ctx"], atol=1e-4)


def test_noise_is_no_wider_than_the_rounds_basis(tmp_path):
    hidden = PrivacyConfig(noise_multiplier=100.0, clip_norm=5.0)
    state, _ = run(tmp_path, hidden=hidden, rounds=1)
    basis = columns(4, 1, 0).astype(float)
    moved = change(state)
    np.testing.assert_allclose(basis @ (basis.T @ moved), moved, atol=1e-4)
    assert np.abs(moved).max() > 1  # the noise is there


@pytest.mark.parametrize("strategy", ["fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"])
def test_a_hostile_site_is_borne(tmp_path, strategy):
    def attacks(message, honest):
        return repack(honest, lambda _: {"ctx.B": np.full((1, WIDTH), 50, np.float32)})

    settings = {"strategy": strategy, "byzantine": 1, "clip_factor": 0.0, "clip_norm": 0.0}
    honest, _ = run(tmp_path / "honest", **settings)
    found, _ = run(tmp_path / "attacked", train={3: attacks}, **settings)
    assert np.linalg.norm(change(found)) < 2 * np.linalg.norm(change(honest))


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, strategy, dtype):
    settings = {"strategy": strategy, "dtype": dtype}
    whole, _ = run(tmp_path / "whole", rounds=5, **settings)
    run(tmp_path / "parts", rounds=2, **settings)
    resumed, _ = run(tmp_path / "parts", rounds=5, resume=True, **settings)
    assert resumed.arrays["ctx"].tobytes() == whole.arrays["ctx"].tobytes()


def test_a_lost_try_changes_nothing(tmp_path):
    """A repeated round has the same basis: only the sites' answers decide what it adds."""
    failed = []

    def fails_once(message, honest):
        if not failed:
            failed.append(True)
            raise RuntimeError("the power is gone")
        return learns(message, honest)

    found, lines = run(tmp_path / "again", train={0: fails_once}, quorum=1.0, quarantine=0)
    plain, _ = run(tmp_path / "plain")
    assert lines[1]["attempt"] == 1
    assert found.arrays["ctx"].tobytes() == plain.arrays["ctx"].tobytes()


def test_a_deployed_site_sends_the_rounds_update_alone_and_within_its_policy(tmp_path):
    """Late or not, a site needs nothing but the message: prompt and round."""
    photos = image_folder(tmp_path / "photos", ("cat", "dog"), 12)
    clip = shared_backbone(BackboneConfig(name="embedded-cnn"))
    folder = site(tmp_path / "north", photos, invitation(("cat", "dog"), clip))
    rule(folder, "min_sites", "1")
    rule(folder, "max_norm", "0.01")
    settings = defaults() | {
        "backbone.name": "embedded-cnn", "data.source": str(photos), "fit.learning_rate": 0.1,
        "server.rule": "fresh-basis", "server.rounds": 8,
    }  # fmt: skip
    prompt = Tuning(RunConfig.parse(settings)).prompt
    asked = {"run": "abc", "round": 6, "seed": 0, "mu": 0.0, "sites": 5}
    arrays = to_array_record(prompt.arrays(), "float32")
    reply = send(
        folder, "train", RecordDict({"arrays": arrays, "config": ConfigRecord(asked)}), settings
    )
    assert not reply.has_error(), reply.error
    record = reply.content.array_records["arrays"]
    assert list(record) == ["ctx.B"]
    update = from_array_record(record, {"ctx.B": prompt.leaving()["ctx.B"].shape}, "float32")[
        "ctx.B"
    ]
    assert 0.0099 < np.linalg.norm(columns(4, 1, 5).astype(float) @ update) <= 0.01 * (1 + 1e-6)


def test_what_is_no_update_of_the_round_is_refused(tmp_path):
    """Neither a whole prompt nor an update of another rank passes for one."""
    wrong = {
        1: {"ctx": START["ctx"]},
        2: {"ctx.B": np.zeros((2, WIDTH), np.float32)},
        3: {"ctx.B": np.zeros((1, WIDTH), np.float32), "ctx": START["ctx"]},
    }
    spoilt = {
        site: (lambda message, honest, arrays=arrays: repack(honest, lambda _: arrays))
        for site, arrays in wrong.items()
    }
    _, lines = run(tmp_path, train=spoilt, rounds=1)
    assert lines[1]["accepted"] == [0, 4, 5, 6]
    assert [verdict["reasons"] for verdict in lines[1]["verdicts"]] == [
        ["missing-array"], ["wrong-shape"], ["extra-array"],
    ]  # fmt: skip
