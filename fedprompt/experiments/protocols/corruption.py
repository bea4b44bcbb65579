"""Corruption: a method tuned on clean images meets spoilt ones.

Noise, blur, JPEG and low contrast, five strengths each, of the kinds that ImageNet-C published
(arXiv 1903.12261). Twenty passes of the image tower over the test images: ``data.test_limit``
bounds them. Centralised, 16 shots.
"""

from fedprompt.experiments.corruption import CORRUPTIONS, STRENGTHS
from fedprompt.experiments.protocols.base_to_new import FEW_SHOT
from fedprompt.experiments.protocols.cross_dataset import mean
from fedprompt.experiments.protocols.protocol import Found, Metrics, Protocol, Trial
from fedprompt.experiments.protocols.tune import centrally
from fedprompt.experiments.robustness import Sweep, corrupted_accuracy
from fedprompt.experiments.setup import open_experiment


def run(trial: Trial) -> Found:
    """Return ``accuracy`` on clean images, ``corruption_acc``, the mean, and each kind's."""
    tuned = centrally(trial, "clean", {})
    bench, prompt = open_experiment(tuned.config), tuned.as_tuned()
    sweep = Sweep(batch=bench.fit.encode_batch, max_pixels=bench.data.max_pixels)
    kinds: Metrics = {}
    for kind in CORRUPTIONS:
        found = [
            corrupted_accuracy(prompt, tuned.clip, bench.test, kind, strength, sweep)
            for strength in STRENGTHS
        ]
        kinds[f"accuracy_{kind}"] = sum(found) / len(found)
    scores = tuned.score({})
    clean = scores["accuracy"] if scores else None
    return Found({"accuracy": clean, "corruption_acc": mean(kinds), **kinds}, tuned)


PROTOCOL = Protocol(run=run, headline="corruption_acc", defaults=FEW_SHOT)
