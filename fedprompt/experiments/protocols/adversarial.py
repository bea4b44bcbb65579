"""Adversarial (AdvPT, arXiv 2311.11261): a tuned method meets attacked images.

PGD-40 within 16/255 (`client.features.attack`). ``adversarial_acc``: the attack knows CLIP, not
the prompt, as published; ``adaptive_acc``: it knows the prompt as well (ours), which is the honest
figure.
Eighty passes of the image tower over the test images, and back: ``data.test_limit`` bounds them.
Centralised, 16 shots.
"""

from client.features.attack import TEST
from fedprompt.experiments.protocols.base_to_new import FEW_SHOT
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally
from fedprompt.experiments.robustness import Sweep, adversarial_accuracy
from fedprompt.experiments.setup import open_experiment


def run(trial: Trial) -> Found:
    """Return ``accuracy`` on clean images, ``adversarial_acc`` and ``adaptive_acc``."""
    tuned = centrally(trial, "tuned", {})
    bench, prompt = open_experiment(tuned.config), tuned.as_tuned()
    scores = tuned.score({})
    metrics: Metrics = {"accuracy": scores["accuracy"] if scores else None}
    fit, data = bench.fit, bench.data
    sweep = Sweep(batch=fit.encode_batch, seed=data.seed, max_pixels=data.max_pixels)
    for name, adaptive in (("adversarial_acc", False), ("adaptive_acc", True)):
        metrics[name] = adversarial_accuracy(
            prompt, tuned.clip, bench.test, TEST, sweep, adaptive=adaptive
        )
    return Found(metrics, tuned)


PROTOCOL = Protocol(run=run, headline="adversarial_acc", defaults=FEW_SHOT)
