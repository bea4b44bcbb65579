import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.features.adversarial_features import TEST, Attack
from client.tuning.evaluate import predict
from fedprompt.artefact import Artefact
from fedprompt.errors import ConfigError, DataError
from fedprompt.experiments import centralised_training
from fedprompt.experiments.protocols import PROTOCOLS, centralised
from fedprompt.experiments.protocols.centralised import (
    BASE,
    adversarial,
    base_to_new,
    calibration,
    corruption,
    cross_dataset,
    cross_domain,
    few_shot,
)
from fedprompt.experiments.protocols.federated import multi_domain
from fedprompt.experiments.protocols.trial import TrainedMethod, accuracy_by_domain
from fedprompt.experiments.robustness import corrupted_accuracy
from fedprompt.experiments.setup import open_experiment
from tests.pictures import image_folder
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
    metrics = base_to_new(trial).metrics
    assert list(metrics) == ["base_acc", "new_acc", "harmonic_mean"]
    assert metrics["base_acc"] == pytest.approx(by_hand(trial, clip, "base"))
    assert metrics["new_acc"] == pytest.approx(by_hand(trial, clip, "new"))
    assert Artefact.load(trial.folder / "base").metadata["classes"] == list(CLASSES[:3])
    base, new = metrics["base_acc"], metrics["new_acc"]
    assert metrics["harmonic_mean"] == pytest.approx(2 * base * new / (base + new))


def test_training_raises_the_base_classes(make_trial):
    before = base_to_new(make_trial(prompt__method="template")).metrics
    after = base_to_new(make_trial(prompt__method="coop", fit__epochs=20)).metrics
    assert after["base_acc"] > before["base_acc"]


def test_a_method_that_trains_nothing_has_all_three_and_no_size(make_trial):
    found = base_to_new(make_trial(prompt__method="template"))
    assert None not in found.metrics.values()
    assert (found.method.size.parameters, found.method.size.bytes_up) == (0, 0)
    assert not found.method.artefact


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt__method": "linear"},
        {"prompt__method": "coop", "prompt__class_specific": True},
        {"prompt__method": "dip", "prompt__class_specific": True},
    ],
)
def test_what_is_tied_to_its_classes_has_no_new_accuracy(make_trial, settings):
    metrics = base_to_new(make_trial(**settings)).metrics
    assert metrics["base_acc"] is not None
    assert (metrics["new_acc"], metrics["harmonic_mean"]) == (None, None)


@pytest.mark.parametrize("layout", [{"prompt__name_position": "front"}, {"prompt__tokens": 2}])
def test_every_layout_of_a_shared_context_serves_new_classes(make_trial, layout):
    assert base_to_new(make_trial(prompt__method="coop", **layout)).metrics["new_acc"] is not None


def test_the_setting_is_coops():
    assert PROTOCOLS["base-to-new"].defaults == {"data.shots": 16, "fit.epochs": 50}
    assert BASE == {"data.subsample_classes": "base"}


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return sum_b |B_b| / n |accuracy(B_b) - confidence(B_b)| (Guo et al. 2017)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.ceil(confidence * bins)
    return sum(
        (place == b).mean() * abs(right[place == b].mean() - confidence[place == b].mean())
        for b in np.unique(place)
    )


@pytest.mark.parametrize(("half", "prefix"), [("base", ""), ("new", "new_")])
def test_both_figures_of_both_halves(make_trial, half, prefix):
    found = calibration(make_trial(prompt__method="coop"))
    assert list(found.metrics) == ["ece", "nll", "new_ece", "new_nll"]
    bench = open_experiment(found.method.config.override({"data.subsample_classes": half}))
    images, labels = bench.encode(bench.test)
    logits = predict(found.method.for_classes(bench.test.classes), images).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    nll = -np.log(shares[np.arange(len(labels)), labels]).mean()
    assert found.metrics[f"{prefix}nll"] == pytest.approx(nll, rel=1e-5)
    assert found.metrics[f"{prefix}ece"] == pytest.approx(ece(shares, labels.numpy()), abs=1e-5)


def test_each_number_of_shots_is_tuned_anew(make_trial):
    trial = make_trial(prompt__method="coop", fit__epochs=1)
    found = few_shot(trial)
    assert list(found.metrics) == [f"accuracy_{k}_shot" for k in (1, 2, 4, 8, 16)]
    hashes = {Artefact.load(trial.folder / f"{k}-shot").sha256 for k in (1, 2, 4, 8, 16)}
    assert len(hashes) == 5
    assert all(0 <= value <= 1 for value in found.metrics.values())


@pytest.fixture
def targets(tmp_path: Path) -> dict:
    """Two sets with classes of their own, of unequal size."""
    made = {}
    for name, classes in (("fruit", ("fig", "lime")), ("tools", ("axe", "saw", "hoe"))):
        image_folder(tmp_path / name / "train", classes, 2)
        image_folder(tmp_path / name / "test", classes, 8, size=44)
        made[name] = {"data.source": str(tmp_path / name)}
    return made


def test_each_target_is_told_apart_among_its_own_classes(make_trial, targets):
    trial = make_trial(prompt__method="coop", targets=targets)
    found = cross_dataset(trial)
    assert list(found.metrics) == ["source_acc", "target_acc", "accuracy_fruit", "accuracy_tools"]
    fruit, tools = (found.metrics[f"accuracy_{name}"] for name in targets)
    assert found.metrics["target_acc"] == pytest.approx((fruit + tools) / 2)
    assert fruit == found.method.accuracy(targets["fruit"])
    assert (fruit * 16).is_integer()
    assert (tools * 24) == pytest.approx(round(tools * 24))


def test_without_targets_it_says_what_to_give(make_trial):
    with pytest.raises(ConfigError, match=r"give --target FILE\.toml"):
        cross_dataset(make_trial())


def test_cross_domain_takes_targets_as_well(make_trial, targets):
    trial = make_trial(prompt__method="template", targets=targets)
    assert cross_domain(trial).metrics == cross_dataset(trial).metrics


DRAWN = ("ant", "bee")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A manifest of three hands: six training and four test images of each class and hand."""
    image_folder(tmp_path, DRAWN, 30)
    path = tmp_path / "drawn.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "domain"])
        for name in DRAWN:
            for number in range(30):
                split = "train" if number % 10 < 6 else "test"
                writer.writerow(
                    [f"{name}/{number}.png", name, split, ("ink", "oil", "wax")[number // 10]]
                )
    return path


def test_the_first_domain_alone_is_trained_on(make_trial, drawn, monkeypatch):
    seen = []
    fit = centralised_training.fit_run

    def note(prompt, images, labels, *rest, **more):
        seen.append(labels.tolist())
        return fit(prompt, images, labels, *rest, **more)

    monkeypatch.setattr(centralised_training, "fit_run", note)
    trial = make_trial(data__source=str(drawn), prompt__method="coop", data__shots=4)
    found = cross_domain(trial)
    assert sorted(seen[0]) == [0] * 4 + [1] * 4  # shots of the source domain
    names = ["accuracy_ink", "accuracy_oil", "accuracy_wax"]
    assert list(found.metrics) == ["source_acc", "target_acc", *names]
    assert found.metrics["source_acc"] == found.metrics["accuracy_ink"]
    others = (found.metrics["accuracy_oil"] + found.metrics["accuracy_wax"]) / 2
    assert found.metrics["target_acc"] == pytest.approx(others)


def test_without_shots_all_of_the_domain(make_trial, drawn, monkeypatch):
    sizes = []
    fit = centralised_training.fit_run

    def note(prompt, images, labels, *rest):
        sizes.append(len(labels))
        return fit(prompt, images, labels, *rest)

    monkeypatch.setattr(centralised_training, "fit_run", note)
    cross_domain(make_trial(data__source=str(drawn), prompt__method="coop"))
    assert sizes == [12]


def test_the_domains_accuracies_make_up_the_whole(make_trial, drawn):
    trial = make_trial(data__source=str(drawn), prompt__method="template")
    bench = open_experiment(trial.config)
    method = TrainedMethod(bench.clip, trial.config, DRAWN, None)
    found = accuracy_by_domain(method)
    assert sum(found.values()) / 3 == pytest.approx(method.accuracy({}))  # of equal size
    assert bench.test.of_domain(1).domains.tolist() == [1] * 8


def test_images_without_domains_are_refused(make_trial):
    with pytest.raises(DataError, match="belong to no domains"):
        cross_domain(make_trial(prompt__method="template"))


def test_a_domain_without_test_images_is_named(make_trial, drawn):
    with pytest.raises(DataError, match=r"has no test image; raise data\.test_limit"):
        cross_domain(
            make_trial(data__source=str(drawn), prompt__method="template", data__test_limit=2)
        )


def test_multi_domain_counts_each_domain_once(make_trial, drawn):
    trial = make_trial(
        data__source=str(drawn), prompt__method="template", data__clients=3,
        data__partitioner="domain",
    )  # fmt: skip
    found = multi_domain(trial)
    shares = [found.metrics[f"accuracy_{name}"] for name in ("ink", "oil", "wax")]
    assert found.metrics["accuracy"] == pytest.approx(sum(shares) / 3)
    assert found.metrics["worst_domain_acc"] == min(shares)
    assert PROTOCOLS["multi-domain"].defaults["data.partitioner"] == "domain"


KINDS = ("noise", "blur", "jpeg", "contrast")


def test_each_kind_is_the_mean_of_its_five_strengths(make_trial, clip):
    found = corruption(make_trial(prompt__method="coop", data__shots=2))
    assert list(found.metrics) == [
        "accuracy", "corruption_acc", *(f"accuracy_{kind}" for kind in KINDS)
    ]  # fmt: skip
    test = open_experiment(found.method.config).test
    prompt = found.method.as_trained()
    shares = [corrupted_accuracy(prompt, clip, test, "contrast", s) for s in range(1, 6)]
    assert found.metrics["accuracy_contrast"] == pytest.approx(sum(shares) / 5)
    kinds = [found.metrics[f"accuracy_{kind}"] for kind in KINDS]
    assert found.metrics["corruption_acc"] == pytest.approx(sum(kinds) / 4)


def test_an_attack_lowers_accuracy(make_trial, monkeypatch):
    monkeypatch.setattr(centralised, "TEST", Attack(radius=16 / 255, step=4 / 255, steps=5))
    found = adversarial(make_trial(prompt__method="coop", fit__epochs=20, data__test_limit=10))
    assert found.metrics["adaptive_acc"] < found.metrics["accuracy"]


def test_the_attack_is_advpts_once_without_and_once_with_the_prompt(make_trial, monkeypatch):
    asked = []

    def attacked(prompt, clip, images, attack, sweep, adaptive):
        asked.append((attack, adaptive, len(images), sweep.seed))
        return 0.25 if adaptive else 0.5

    monkeypatch.setattr(centralised, "adversarial_accuracy", attacked)
    found = adversarial(make_trial(prompt__method="template", data__seed=3))
    assert list(found.metrics) == ["accuracy", "adversarial_acc", "adaptive_acc"]
    assert (found.metrics["adversarial_acc"], found.metrics["adaptive_acc"]) == (0.5, 0.25)
    assert asked == [(TEST, False, 30, 3), (TEST, True, 30, 3)]
    assert Attack(radius=16 / 255, step=0.5 / 255, steps=40) == TEST
