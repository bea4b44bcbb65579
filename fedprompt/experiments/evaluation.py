"""Score a prompt on held-out images, beside zero-shot CLIP, with the field's usual metrics."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from client.tuning.evaluate import predict
from fedprompt.accuracy import Accuracy, Difference
from fedprompt.artefact import Artefact, load_artefact
from fedprompt.data.classes import in_ascii, one_form
from fedprompt.data.decode import Rgb
from fedprompt.errors import DataError
from fedprompt.experiments.setup import Experiment, of_artefact, open_experiment
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.template import Template
from fedprompt.run_folder import RunFolder
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.storage import check_writable, write_atomic
from fedprompt.types import Labels, Logits

_SAMPLES, _THUMBNAIL = 24, (96, 96)  # shown in the report; pixels


def score(run: Path | None, given: Flat) -> tuple[dict[str, Any], str]:
    """Score a prompt on the test images and return the result and its lines.

    A run's folder also gets the predictions, for `fedprompt report`.

    Parameters
    ----------
    run
        Folder of a run or an artefact; None = the configured prompt, untrained.
    given
        Settings; they win over those of the run.

    Raises
    ------
    DataError
        There are no test images, or they have other classes than the prompt.
    """
    flat = RunFolder(run).scoring_settings() | given if run else given
    artefact = load_artefact(run) if run else None
    if run:
        check_writable(run, "folder")
    config = RunConfig.parse(of_artefact(flat, artefact) if artefact else flat)
    experiment = open_experiment(config)
    prompt = _tuned(artefact, experiment) if artefact else _untuned(config.prompt, experiment)
    images, labels = experiment.encode(experiment.test, prompt.first_layer)
    logits = predict(prompt, images)
    template = Template(experiment.clip, experiment.test.classes, experiment.data.template)
    correct = _correct(logits, labels)
    zero_shot_correct = _correct(predict(template, images), labels)
    accuracy, zero_shot = Accuracy.of(correct), Accuracy.of(zero_shot_correct)
    result = {
        "source": experiment.data.source,
        "images": len(labels),
        **metrics(logits, labels),
        "accuracy_interval": accuracy.interval,
        "artefact": artefact.sha256 if artefact else None,
        "zero_shot_accuracy": zero_shot.share,
        "zero_shot_interval": zero_shot.interval,
    }
    if run and (folder := RunFolder(run)).is_run():
        details = _details(experiment, logits, labels)
        details |= {"correct": correct, "zero_shot_correct": zero_shot_correct}
        write_atomic(folder.predictions, canonical_json(result | details))
    gain = Difference.of(correct, zero_shot_correct)
    return result, _lines(result, accuracy, zero_shot, gain)


def metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    """Return ``accuracy``, ``macro_f1``, ``ece`` (15 bins) and ``nll`` (nats)."""
    predicted, truth = logits.argmax(-1).cpu().numpy(), labels.cpu().numpy()
    present = np.unique(truth)
    calibration = multiclass_calibration_error(logits.softmax(-1), labels, logits.shape[1], 15)
    return {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(
            f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
        ),
        "ece": float(calibration),
        "nll": float(F.cross_entropy(logits, labels)),
    }


def confusion(logits: Logits, labels: Labels) -> list[list[int]]:
    """Return counts [classes classes], rows are the true classes."""
    counts = confusion_matrix(
        labels.cpu().numpy(), logits.argmax(-1).cpu().numpy(), labels=range(logits.shape[1])
    )
    rows: list[list[int]] = counts.tolist()
    return rows


def spread_choice(labels: Labels, count: int, seed: int) -> list[int]:
    """Return up to ``count`` indices that go through the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    turns: dict[int, int] = {}
    ranked = []
    for index in order.tolist():
        label = int(labels[index])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], label, index))
    return [index for _, _, index in sorted(ranked)[:count]]


def _tuned(artefact: Artefact, experiment: Experiment) -> Prompt:
    _check_classes(tuple(artefact.metadata["classes"]), experiment.test.classes)
    return from_artefact(artefact, experiment.clip)


def _untuned(settings: PromptConfig, experiment: Experiment) -> Prompt:
    return build_prompt(
        settings, experiment.clip, experiment.test.classes, experiment.data.template
    )


def _correct(logits: Logits, labels: Labels) -> list[int]:
    """Return 1 for each image that is classified correctly, else 0."""
    hits: list[int] = (logits.argmax(-1) == labels).int().tolist()
    return hits


def _lines(result: dict[str, Any], tuned: Accuracy, zero_shot: Accuracy, gain: Difference) -> str:
    return (
        f"accuracy {tuned}, zero-shot {zero_shot}, {tuned.count:,} images, 95% intervals\n"
        f"{gain.verdict('zero-shot')}\n"
        f"macro F1 {result['macro_f1']:.3f}, ECE {result['ece']:.3f}, NLL {result['nll']:.3f}"
    )


def _check_classes(expected: tuple[str, ...], found: tuple[str, ...]) -> None:
    if tuple(map(one_form, expected)) != tuple(map(one_form, found)):
        odd = sorted(set(expected) ^ set(found))[:5]
        raise DataError(
            f"the prompt was tuned for {len(expected)} classes, the data has {len(found)}; they "
            f"differ in {odd or 'their order'}{in_ascii(odd)}. Set data.class_names to the "
            "prompt's list"
        )


def _details(experiment: Experiment, logits: Logits, labels: Labels) -> dict[str, Any]:
    """Return what a report shows: the confusion matrix and some sample predictions."""
    probabilities, predicted = logits.softmax(-1).max(-1)
    chosen = spread_choice(labels, _SAMPLES, seed=0)
    names = experiment.test.classes
    samples = [
        {
            "name": experiment.test.name(index),
            "true": names[int(labels[index])],
            "predicted": names[int(predicted[index])],
            "probability": float(probabilities[index]),
            "png": _thumbnail(experiment.test.pixels(index, experiment.data.max_pixels)),
        }
        for index in chosen
    ]
    digests = [experiment.test.digest(index) for index in range(len(labels))]
    return {
        "classes": list(names),
        "test_set": sha256_bytes(canonical_json([list(names), digests, labels.tolist()])),
        "confusion": confusion(logits, labels),
        "samples": samples,
    }


def _thumbnail(pixels: Rgb) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
