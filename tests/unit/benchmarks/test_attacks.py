"""The attackers' arithmetic, and how the benchmark's figures are made of runs."""

import io

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from PIL import Image

from benchmarks import attackers, attacks
from benchmarks.attackers import ATTACKS, HOSTILE, PATCH, SITES, STEPS, View, flat, send, triggered
from benchmarks.attacks import SEEDS, STRATEGIES, Outcome, figures, named, settings
from fedprompt.data.decode import decode
from fedprompt.data.image_set import image_set
from fedprompt.settings.run_config import RunConfig
from fedprompt.wire import to_array_record
from server.merge import robust
from server.rounds.local_grid import LocalGrid
from tests.sites import client, start

VIEW = View(np.ones(6), np.arange(48.0).reshape(8, 6), np.random.default_rng(0))


@pytest.fixture(autouse=True, scope="module")
def identity():
    with LocalGrid(client(), 1, {}):  # a Message needs a task's identity
        yield


def test_every_strategy_is_a_sound_configuration():
    for name, chosen in STRATEGIES.items():
        config = RunConfig.parse(settings(name, 1) | chosen)
        robust.check_sites(config.server, SITES, SITES)


def test_the_attacks_are_what_their_papers_say():
    mean = VIEW.honest.mean(0)
    np.testing.assert_allclose(STEPS["sign flip"](VIEW), -10 * VIEW.own)
    np.testing.assert_allclose(STEPS["inner product"](VIEW), -10 * mean)
    np.testing.assert_allclose(STEPS["small inner product"](VIEW), -mean)
    np.testing.assert_allclose(STEPS["ALIE"](VIEW), mean - 1.5 * VIEW.honest.std(0))
    size = np.median(np.linalg.norm(VIEW.honest, axis=1))
    assert np.linalg.norm(STEPS["Gaussian"](VIEW)) == pytest.approx(10 * size)


def test_a_reply_carries_the_nearest_factors_and_keeps_its_metrics():
    sent = start(rank=2)
    content = RecordDict(
        {
            "arrays": to_array_record(sent, "float32"),
            "metrics": MetricRecord({"num-examples": 5, "receipt": 1, "loss": 0.5}),
        }
    )
    reply = Message(content, reply_to=Message(RecordDict(), 1, "train"))
    step = np.outer([1, 2, 3, 4], np.linspace(-1, 1, 32)).ravel()
    hostile = send(reply, sent, step)
    found = attackers.unpack(hostile)
    assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in sent.items()}
    np.testing.assert_allclose(flat(found) - flat(sent), step, atol=1e-5)
    assert dict(hostile.content["metrics"]) == {"num-examples": 5, "receipt": 1, "loss": 0.5}


class Pictures:
    def content(self, index):
        buffer = io.BytesIO()
        Image.fromarray(np.full((28, 28, 3), 10 * index, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    def name(self, index):
        return f"picture {index}"


def test_the_trigger_is_a_white_square_and_nothing_else():
    clean = image_set(["cat", "dog"], [0, 1, 1], Pictures())
    stamped = triggered(clean)
    np.testing.assert_array_equal(stamped.labels, clean.labels)
    for i in range(3):
        before, after = decode(clean.content(i)), decode(stamped.content(i))
        assert (after[-PATCH:, -PATCH:] == 255).all()
        after[-PATCH:, -PATCH:] = before[-PATCH:, -PATCH:]
        np.testing.assert_array_equal(after, before)
        assert stamped.digest(i) != clean.digest(i)


def test_honest_sites_answer_for_themselves_and_colluders_never_alike(monkeypatch):
    monkeypatch.setattr(attackers, "honest_client", client())
    hostile = attackers.hostile_client("inner product")
    content = RecordDict({"arrays": to_array_record(start(), "float32")})
    content["config"] = ConfigRecord({"run": "r", "round": 1, "seed": 0, "mu": 0.0})
    replies = {}
    for site in range(SITES):
        context = Context(1, site, {"partition-id": site}, RecordDict(), {})
        message = Message(content, 1000 + site, "train")
        own = flat(attackers.unpack(client()(message, context)))
        replies[site] = flat(attackers.unpack(hostile(message, context)))
        assert (replies[site] == own).all() == (site < SITES - HOSTILE)
    assert (replies[8] != replies[9]).any()
    honest = np.mean([replies[i] for i in range(SITES - HOSTILE)], axis=0) - flat(start())
    assert (replies[8] - flat(start())) @ honest < 0


def test_figures_are_points_lost_to_the_same_rule_and_seed_unattacked():
    found = {}
    for seed in SEEDS:
        for attack in ("clean", *ATTACKS):
            for name in STRATEGIES:
                found[attack, name, seed] = Outcome(80.0 + seed, 2.0, [], 1.0)
        found["ALIE", "robust", seed] = Outcome(78.5 + seed, 2.0, [8], 1.0)
        found["sign flip", "plain", seed] = Outcome(10.0 + 2 * seed, 2.0, [], 1.0)
        found["backdoor", "plain", seed] = Outcome(79.0 + seed, 94.0 + seed, [], 1.0)
    found["label flip", "robust", 2] = Outcome(77.5, 2.0, [9], 1.0)
    told = figures(found)
    assert told["clean_robust"] == pytest.approx(81.0)
    assert told["clean_robust_std"] == pytest.approx(1.0)
    assert told["most_lost_points_robust"] == pytest.approx(1.5)  # ALIE; label flip: 4.5 / 3
    assert told["most_lost_points_at_a_seed_robust"] == pytest.approx(4.5)
    assert told["most_lost_points_plain"] == pytest.approx(69.0)
    assert told["within_bound"] == 1.0
    assert told["backdoor_success_plain"] == pytest.approx(95.0)
    assert told["sign_flip_plain"] == pytest.approx(12.0)
    assert named(found, "ALIE", "robust") == "8 (3 of 3)"
    assert named(found, "label flip", "robust") == "9 (1 of 3)"
    for seed in SEEDS:
        found["Gaussian", "robust", seed] = Outcome(76.9 + seed, 2.0, [], 1.0)
    assert attacks.figures(found)["within_bound"] == 0.0
