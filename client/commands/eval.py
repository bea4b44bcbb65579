"""``fedprompt eval``: score a prompt on images that no site trained on."""

import base64
import io
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from client.evaluate import predict
from client.scoring import confusion, metrics, spread_choice
from client.workbench import Workbench, of_artefact, open_workbench
from fedprompt.config import load, of_run, section
from fedprompt.data.decode import decode
from fedprompt.errors import DataError
from fedprompt.identity import canonical_json
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.prompts.artefacts import from_artefact, load_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.template import Template
from fedprompt.storage import write_atomic
from fedprompt.types import Labels, Logits

_SAMPLES, _THUMBNAIL = 24, (96, 96)  # shown in the report; pixels


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run or artefact folder; without it the configured prompt's start."),
    ] = None,
    config: ConfigOption = None,
    override: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Score a prompt on the test split, beside zero-shot CLIP in the same run.

    A run's folder brings its own settings, and the predictions are left there for
    `fedprompt report`. Example: fedprompt eval runs/demo
    """
    flat = (of_run(run) if run else {}) | load(config, override or ())
    artefact = load_artefact(run) if run else None
    bench = open_workbench(of_artefact(flat, artefact) if artefact else flat)
    classes, template = bench.test.classes, bench.data.template
    if artefact:
        _same_classes(tuple(artefact.metadata["classes"]), classes)
        prompt: Prompt = from_artefact(artefact, bench.clip)
    else:
        settings = section(flat, "prompt", PromptConfig)
        prompt = build_prompt(settings, bench.clip, classes, template)
    features, labels = bench.features(bench.test)
    scale = bench.clip.logit_scale
    logits = predict(prompt, features, scale)
    zero_shot = metrics(predict(Template(bench.clip, classes, template), features, scale), labels)
    result: dict[str, Any] = {
        "source": bench.data.source,
        "images": len(labels),
        **metrics(logits, labels),
    }
    result["artefact"] = artefact.sha256 if artefact else None
    result["zero_shot_accuracy"] = zero_shot["accuracy"]
    if run and any((run / name).is_file() for name in ("rounds.jsonl", "settings.json")):
        write_atomic(
            run / "predictions.json", canonical_json(result | _details(bench, logits, labels))
        )
    show(
        result,
        f"accuracy {result['accuracy']:.1%} (zero-shot {result['zero_shot_accuracy']:.1%}), "
        f"macro F1 {result['macro_f1']:.3f}, ECE {result['ece']:.3f}, NLL {result['nll']:.3f} "
        f"on {len(labels)} images",
        as_json=json,
    )


def _same_classes(expected: tuple[str, ...], found: tuple[str, ...]) -> None:
    if expected != found:
        odd = sorted(set(expected) ^ set(found))[:5] or "their order"
        raise DataError(
            f"the prompt was tuned for {len(expected)} classes, the data has {len(found)}; they "
            f"differ in {odd}. Set data.class_names to the prompt's list"
        )


def _details(bench: Workbench, logits: Logits, labels: Labels) -> dict[str, Any]:
    """Return what a report shows: the confusion matrix and some sample predictions."""
    probabilities, predicted = logits.softmax(-1).max(-1)
    chosen = spread_choice(labels, _SAMPLES, seed=0)
    names = bench.test.classes
    samples = [
        {
            "name": bench.test.name(index),
            "true": names[int(labels[index])],
            "predicted": names[int(predicted[index])],
            "probability": float(probabilities[index]),
            "png": _thumbnail(bench.test.content(index), bench.data.max_pixels),
        }
        for index in chosen
    ]
    return {"classes": list(names), "confusion": confusion(logits, labels), "samples": samples}


def _thumbnail(content: bytes, max_pixels: int) -> str:
    image = Image.fromarray(decode(content, max_pixels=max_pixels))
    image.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
