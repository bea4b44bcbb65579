"""``fedprompt eval``: score a prompt on images that no site trained on."""

import base64
import io
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from client.tuning.evaluate import predict
from fedprompt.accuracy import Accuracy, Difference
from fedprompt.artefact import Artefact, load_artefact
from fedprompt.data.classes import in_ascii, one_form
from fedprompt.data.decode import Rgb
from fedprompt.errors import ConfigError, DataError
from fedprompt.experiments.commands.protocol import run_protocol
from fedprompt.experiments.metrics import confusion, metrics, spread_choice
from fedprompt.experiments.setup import Workbench, of_artefact, open_workbench
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.template import Template
from fedprompt.run_folder import RunFolder
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import load, section
from fedprompt.settings.section import Flat
from fedprompt.storage import check_writable, write_atomic
from fedprompt.types import Labels, Logits

_SAMPLES, _THUMBNAIL = 24, (96, 96)  # shown in the report; pixels


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run or artefact folder; without it the configured prompt's start."),
    ] = None,
    config: ConfigOption = None,
    override: SetOption = None,
    protocol: Annotated[
        str, typer.Option(help="Tune and score methods over seeds as a known protocol does.")
    ] = "",
    methods: Annotated[
        str, typer.Option(help="With --protocol: names with commas between, or all.")
    ] = "template,dip,coop",
    seeds: Annotated[
        str, typer.Option(help="With --protocol: numbers with commas between.")
    ] = "0,1,2",
    target: Annotated[
        list[Path] | None,
        typer.Option(help="With --protocol: TOML file with the [data] of a set to test on."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="With --protocol: folder of tables, plots and trials.")
    ] = Path("runs/protocol"),
    workers: Annotated[
        int, typer.Option(min=1, help="With --protocol: processes that run trials.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Score a prompt on the test split, beside zero-shot CLIP in the same run.

    A run's folder brings its own settings, and the predictions are left there for
    `fedprompt report`. Example: fedprompt eval runs/demo

    With --protocol methods are tuned as it says; trials that are done are kept.
    Example: fedprompt eval --protocol base-to-new --methods template,dip,coop --output runs/b2n
    """
    if protocol:
        _no_run(run)
        check_writable(output, "folder")
        given = load(config, override or ())
        told = run_protocol(protocol, methods, seeds, target or (), given, output, workers)
        show(*told, as_json=json)
    else:
        own = RunFolder(run).scoring_settings() if run else {}
        _score(run, own | load(config, override or ()), as_json=json)


def _score(run: Path | None, flat: Flat, *, as_json: bool) -> None:
    artefact = load_artefact(run) if run else None
    if run:
        check_writable(run, "folder")
    bench = open_workbench(of_artefact(flat, artefact) if artefact else flat)
    prompt = _tuned(artefact, bench) if artefact else _untuned(flat, bench)
    images, labels = bench.encode(bench.test, prompt.first_layer)
    logits = predict(prompt, images)
    zero_shot = predict(Template(bench.clip, bench.test.classes, bench.data.template), images)
    correct, correct_before = _correct(logits, labels), _correct(zero_shot, labels)
    accuracy, before = Accuracy.of(correct), Accuracy.of(correct_before)
    result = {
        "source": bench.data.source,
        "images": len(labels),
        **metrics(logits, labels),
        "accuracy_interval": accuracy.interval,
        "artefact": artefact.sha256 if artefact else None,
        "zero_shot_accuracy": before.share,
        "zero_shot_interval": before.interval,
    }
    if run and (folder := RunFolder(run)).is_run():
        details = _details(bench, logits, labels)
        details |= {"correct": correct, "zero_shot_correct": correct_before}
        write_atomic(folder.predictions, canonical_json(result | details))
    gain = Difference.of(correct, correct_before)
    show(result, _told(result, accuracy, before, gain), as_json=as_json)


def _tuned(artefact: Artefact, bench: Workbench) -> Prompt:
    _same_classes(tuple(artefact.metadata["classes"]), bench.test.classes)
    return from_artefact(artefact, bench.clip)


def _untuned(flat: Flat, bench: Workbench) -> Prompt:
    settings = section(flat, "prompt", PromptConfig)
    return build_prompt(settings, bench.clip, bench.test.classes, bench.data.template)


def _correct(logits: Logits, labels: Labels) -> list[int]:
    """Return 1 for each image that is classified correctly, else 0."""
    hits: list[int] = (logits.argmax(-1) == labels).int().tolist()
    return hits


def _told(result: dict[str, Any], tuned: Accuracy, zero_shot: Accuracy, gain: Difference) -> str:
    return (
        f"accuracy {tuned}, zero-shot {zero_shot}, {tuned.count:,} images, 95% intervals\n"
        f"{gain.verdict('zero-shot')}\n"
        f"macro F1 {result['macro_f1']:.3f}, ECE {result['ece']:.3f}, NLL {result['nll']:.3f}"
    )


def _no_run(run: Path | None) -> None:
    if run:
        raise ConfigError(
            f"--protocol tunes methods itself and takes no run, found {run}; leave one of them out"
        )


def _same_classes(expected: tuple[str, ...], found: tuple[str, ...]) -> None:
    if tuple(map(one_form, expected)) != tuple(map(one_form, found)):
        odd = sorted(set(expected) ^ set(found))[:5]
        raise DataError(
            f"the prompt was tuned for {len(expected)} classes, the data has {len(found)}; they "
            f"differ in {odd or 'their order'}{in_ascii(odd)}. Set data.class_names to the "
            "prompt's list"
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
            "png": _thumbnail(bench.test.pixels(index, bench.data.max_pixels)),
        }
        for index in chosen
    ]
    digests = [bench.test.digest(index) for index in range(len(labels))]
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
