"""Federations are replaced by their records; real ones are in tests/integration."""

from pathlib import Path

import pytest

from client.tuning.evaluate import evaluate
from fedprompt.data.load import share
from fedprompt.errors import DataError
from fedprompt.experiments.protocols import PROTOCOLS
from fedprompt.experiments.protocols.federated import federated_base_to_new, personal
from fedprompt.experiments.setup import open_experiment
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.template import Template
from fedprompt.round_record import RoundRecord, SiteScore

SITES = {0: SiteScore(accuracy=0.9, examples=10), 1: SiteScore(accuracy=0.4, examples=30)}
LAST = RoundRecord(round=1, accuracy=0.525, worst_client_acc=0.4, sites=SITES)


@pytest.fixture
def federate():
    """Stand in for a federation: it leaves an untuned prompt, and tells of two sites."""
    asked = []

    def run(config):
        asked.append(config)
        bench = open_experiment(config)
        prompt = build_prompt(config.prompt, bench.clip, bench.train.classes, "a photo of a {}.")
        about = {"round": 1, "seed": 0}
        made = to_artefact(bench.clip, prompt, bench.train.classes, "a photo of a {}.", **about)
        made.save(Path(config.server.output) / "artefact")
        return [RoundRecord(round=0, accuracy=0.1, worst_client_acc=0.0), LAST]

    run.asked = asked
    return run


def test_local_counts_sites_once_and_cm_is_half_of_it(make_trial, federate):
    trial = make_trial(federate=federate, prompt__method="coop", **{"data__clients": 2})
    found = federated_base_to_new(trial)
    metrics = found.metrics
    assert metrics["local_acc"] == pytest.approx(0.65)
    mean = 2 / (1 / metrics["base_acc"] + 1 / metrics["new_acc"])
    assert metrics["harmonic_mean"] == pytest.approx(mean)
    assert metrics["combined_metric"] == pytest.approx((0.65 + mean) / 2)
    (config,) = federate.asked
    assert config.data.subsample_classes == "base"
    assert config.server.overwrite
    assert Path(config.server.output) == trial.folder / "run"


def test_a_method_that_trains_nothing_is_scored_at_the_sites(make_trial, clip):
    trial = make_trial(
        prompt__method="template", data__partitioner="disjoint", data__clients=3, data__holdout=0.5
    )
    found = federated_base_to_new(trial)
    config = trial.config.override({"data.subsample_classes": "base"})
    data, bench = config.data, open_experiment(config)
    prompt = Template(clip, bench.train.classes, data.template)
    shares = []
    for number in range(3):
        score = evaluate(prompt, *bench.encode(share(data, number, 3).holdout))
        shares.append(score.correct / score.count)
    assert found.metrics["local_acc"] == pytest.approx(sum(shares) / 3)
    assert found.metrics["combined_metric"] is not None


def test_sites_without_held_out_images_have_no_say(make_trial):
    trial = make_trial(
        prompt__method="template", data__partitioner="dirichlet", data__alpha=0.01,
        data__clients=10,
    )  # fmt: skip
    _, (record,) = trial.train_federated({})
    scores = record.sites.values()
    assert 0 < len(scores) < 10
    right = sum(score.accuracy * score.examples for score in scores)
    assert record.accuracy == pytest.approx(right / sum(score.examples for score in scores))
    assert record.worst_client_acc == min(score.accuracy for score in scores)


def test_personal_tells_of_sites_and_of_the_merged_prompt(make_trial, federate):
    found = personal(make_trial(federate=federate, prompt__method="coop"))
    metrics = found.metrics
    assert (metrics["accuracy"], metrics["worst_client_acc"]) == (0.525, 0.4)
    assert metrics["local_acc"] == pytest.approx(0.65)
    assert metrics["global_acc"] == found.method.accuracy({})


def test_the_published_numbers():
    assert PROTOCOLS["federated-base-to-new"].defaults == {
        "data.partitioner": "disjoint", "data.clients": 10, "data.shots": 16, "fit.epochs": 2,
        "server.rounds": 10, "server.evaluate_every": 0,
    }  # fmt: skip


def test_without_held_out_images_nobody_can_tell(make_trial):
    trial = make_trial(prompt__method="template", data__clients=3, data__holdout=0.0)
    with pytest.raises(DataError, match="let sites hold out images"):
        personal(trial)
