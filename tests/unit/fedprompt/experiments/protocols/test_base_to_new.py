import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedprompt.artefact import Artefact
from fedprompt.experiments.protocols.base_to_new import BASE, PROTOCOL, run
from fedprompt.experiments.protocols.protocol import harmonic_mean
from fedprompt.experiments.setup import open_experiment
from tests.unit.fedprompt.experiments.protocols.conftest import CLASSES
from tests.unit.fedprompt.prompts.naive import class_vectors


def by_hand(trial, clip, half: str) -> float:
    """Return the accuracy of the kept context on one half's test images, by the naive tower."""
    context = Artefact.load(trial.folder / "base").tensors["ctx"]
    chosen = slice(0, 3) if half == "base" else slice(3, 5)
    bench = open_experiment(trial.config)
    images, labels = bench.encode(bench.test)
    rows = (labels >= chosen.start) & (labels < chosen.stop)
    with torch.no_grad():
        vectors = class_vectors(clip, CLASSES[chosen], ".", [torch.from_numpy(np.array(context))])
    found = (images.features[rows] @ F.normalize(vectors, dim=-1).T).argmax(1)
    return float((found == labels[rows] - chosen.start).float().mean())


def test_both_halves_are_told_apart_by_what_the_base_half_taught(make_trial, clip):
    trial = make_trial(prompt__method="coop")
    metrics = run(trial).metrics
    assert list(metrics) == ["base_acc", "new_acc", "harmonic_mean"]
    assert metrics["base_acc"] == pytest.approx(by_hand(trial, clip, "base"))
    assert metrics["new_acc"] == pytest.approx(by_hand(trial, clip, "new"))
    assert Artefact.load(trial.folder / "base").metadata["classes"] == list(CLASSES[:3])
    base, new = metrics["base_acc"], metrics["new_acc"]
    assert metrics["harmonic_mean"] == pytest.approx(2 * base * new / (base + new))


def test_training_raises_the_base_classes(make_trial):
    before = run(make_trial(prompt__method="template")).metrics
    after = run(make_trial(prompt__method="coop", fit__epochs=20)).metrics
    assert after["base_acc"] > before["base_acc"]


def test_a_method_that_trains_nothing_has_all_three_and_no_size(make_trial):
    found = run(make_trial(prompt__method="template"))
    assert None not in found.metrics.values()
    assert (found.tuned.size.parameters, found.tuned.size.bytes_up) == (0, 0)
    assert not found.tuned.artefact


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt__method": "linear"},
        {"prompt__method": "coop", "prompt__class_specific": True},
        {"prompt__method": "dip", "prompt__class_specific": True},
    ],
)
def test_what_is_tied_to_its_classes_has_no_new_accuracy(make_trial, settings):
    metrics = run(make_trial(**settings)).metrics
    assert metrics["base_acc"] is not None
    assert (metrics["new_acc"], metrics["harmonic_mean"]) == (None, None)


@pytest.mark.parametrize("layout", [{"prompt__name_position": "front"}, {"prompt__tokens": 2}])
def test_every_layout_of_a_shared_context_serves_new_classes(make_trial, layout):
    assert run(make_trial(prompt__method="coop", **layout)).metrics["new_acc"] is not None


@pytest.mark.parametrize(("method", "numbers"), [("dip", 32), ("dip-fixed", 4 + 32)])
def test_the_size_is_the_methods(make_trial, method, numbers):
    size = run(make_trial(prompt__method=method)).tuned.size
    assert size.parameters == size.sent == numbers
    assert 4 * numbers < size.bytes_up < 4 * numbers + 400


def test_the_setting_is_coops():
    assert PROTOCOL.defaults == {"data.shots": 16, "fit.epochs": 50}
    assert BASE == {"data.subsample_classes": "base"}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [((0.8, 0.4), 0.5333333), ((0.5, 0.5), 0.5), ((0.0, 0.0), 0.0), ((None, 0.4), None)],
)
def test_the_harmonic_mean(pair, expected):
    assert harmonic_mean(*pair) == (expected and pytest.approx(expected))
