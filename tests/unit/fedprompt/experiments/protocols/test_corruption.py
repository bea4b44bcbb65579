"""How the protocols use `fedprompt.experiments.robustness`, which has tests of its own."""

import pytest

from client.features.attack import Attack
from fedprompt.experiments.protocols import adversarial, corruption
from fedprompt.experiments.robustness import corrupted_accuracy
from fedprompt.experiments.setup import open_experiment

KINDS = ("noise", "blur", "jpeg", "contrast")


def test_each_kind_is_the_mean_of_its_five_strengths(make_trial, clip):
    found = corruption.run(make_trial(prompt__method="coop", data__shots=2))
    assert list(found.metrics) == [
        "accuracy", "corruption_acc", *(f"accuracy_{kind}" for kind in KINDS)
    ]  # fmt: skip
    test = open_experiment(found.tuned.config).test
    prompt = found.tuned.as_tuned()
    shares = [corrupted_accuracy(prompt, clip, test, "contrast", s) for s in range(1, 6)]
    assert found.metrics["accuracy_contrast"] == pytest.approx(sum(shares) / 5)
    kinds = [found.metrics[f"accuracy_{kind}"] for kind in KINDS]
    assert found.metrics["corruption_acc"] == pytest.approx(sum(kinds) / 4)


def test_an_attack_lowers_accuracy(make_trial, monkeypatch):
    monkeypatch.setattr(adversarial, "TEST", Attack(radius=16 / 255, step=4 / 255, steps=5))
    found = adversarial.run(make_trial(prompt__method="coop", fit__epochs=20, data__test_limit=10))
    assert found.metrics["adaptive_acc"] < found.metrics["accuracy"]
