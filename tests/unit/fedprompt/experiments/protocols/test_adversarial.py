from client.features.attack import TEST, Attack
from fedprompt.experiments.protocols import adversarial


def test_the_attack_is_advpts_once_without_and_once_with_the_prompt(make_trial, monkeypatch):
    asked = []

    def attacked(prompt, clip, images, attack, sweep, adaptive):
        asked.append((attack, adaptive, len(images), sweep.seed))
        return 0.25 if adaptive else 0.5

    monkeypatch.setattr(adversarial, "adversarial_accuracy", attacked)
    found = adversarial.run(make_trial(prompt__method="template", data__seed=3))
    assert list(found.metrics) == ["accuracy", "adversarial_acc", "adaptive_acc"]
    assert (found.metrics["adversarial_acc"], found.metrics["adaptive_acc"]) == (0.5, 0.25)
    assert asked == [(TEST, False, 30, 3), (TEST, True, 30, 3)]
    assert Attack(radius=16 / 255, step=0.5 / 255, steps=40) == TEST
