"""``fedprompt export``: from a prompt artefact to one ONNX file, and its model card."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from export.targets import TARGETS, Precision, Recipe, recipe_of
from fedprompt.errors import ConfigError, DataError
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.storage import check_writable

if TYPE_CHECKING:
    from export.fold.load import RealImages
    from fedprompt.artefact import Artefact
    from fedprompt.backbone.clip import FrozenClip
    from fedprompt.settings.section import Scalar

Told = tuple[dict[str, Any], str]  # for machines, for people
_IMAGES_EXACT = 256  # an exact graph is equal on few as on many
_IMAGES = 2000  # a point of accuracy is not seen on fewer


def export(
    artefact: Annotated[Path, typer.Argument(help="Folder of a prompt artefact, or of a run.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="ONNX file to write, classifier.onnx; or the folder of a bundle, a page, or a "
            "model of Triton's.",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(help="Real images for the comparison with torch: as data.source in a config."),
    ] = "",
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many of them to compare: 256 for fp32, else 2,000 by default."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(click_type=click.Choice(list(TARGETS)), help="Where it will run.")
    ] = "cpu",
    precision: Annotated[
        Precision,
        typer.Option(help="Of the weights and products; what each costs is measured and checked."),
    ] = "fp32",
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="With --target triton: TensorRT compiles the graph.")
    ] = False,
    open_vocabulary: Annotated[
        bool,
        typer.Option(
            "--open-vocabulary",
            help="Write a folder (bundle) that takes new class names and new prompts at the edge.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write in spite of a breach of parity; it is recorded.")
    ] = False,
    config: ConfigOption = None,
    override: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Fold a prompt into one ONNX file: uint8 images in, logits out, torch's answers checked.

    A model card is written beside it: FILE.md, or README.md in a folder.
    """
    from export.fold.load import load_clip
    from export.targets.card.run_record import RunRecord
    from export.targets.card.write import card_of, write_card
    from fedprompt.artefact import load_artefact
    from fedprompt.run_folder import RunFolder
    from fedprompt.settings.run_config import load_flat

    recipe = recipe_of(target, precision)
    _check_options(target, precision, tensorrt=tensorrt, open_vocabulary=open_vocabulary)
    place = output or Path("bundle" if open_vocabulary else TARGETS[target].output)
    is_folder = open_vocabulary or target in ("triton", "web")
    check_writable(place, "folder" if is_folder else "file")
    check_writable(card_of(place, folder=is_folder), "file")
    given = load_flat(config, override or ()) | ({"data.source": data} if data else {})
    flat = RunFolder(artefact).scoring_settings() | given
    loaded = load_artefact(artefact)
    clip = load_clip(loaded, flat)
    count = images or (_IMAGES_EXACT if precision == "fp32" else _IMAGES)
    classes = tuple(loaded.metadata["classes"])
    real = _real_images(flat, count, clip, classes, required="data.source" in given)
    ordered = _Ordered(clip, loaded, real, recipe, force)
    if open_vocabulary:
        report, lines = _bundle(place, ordered)
    elif target == "triton":
        report, lines = _repository(place, ordered, tensorrt=tensorrt)
    elif target == "web":
        report, lines = _page(place, ordered)
    else:
        report, lines = _classifier(place, ordered)
    card = write_card(place, loaded, RunRecord.find(artefact, loaded))
    show(report | {"card": str(card)}, f"{lines}\nmodel card: {card}", as_json=json)


def _check_options(
    target: str, precision: Precision, *, tensorrt: bool, open_vocabulary: bool
) -> None:
    if tensorrt and target != "triton":
        raise ConfigError(f"--tensorrt is for --target triton, found {target}; leave it out")
    if open_vocabulary and (target not in ("cpu", "gpu") or precision != "fp32"):
        raise ConfigError(
            f"--open-vocabulary is for --target cpu or gpu in fp32, found {target} in {precision}: "
            "its class vectors change after the file was measured"
        )


@dataclass(frozen=True)
class _Ordered:
    """Hold what is to be written, whatever the target."""

    clip: "FrozenClip"
    artefact: "Artefact"
    real: "RealImages"
    recipe: Recipe
    force: bool


def _classifier(path: Path, ordered: _Ordered) -> Told:
    """Write one ONNX file."""
    from export.fold.load import fold
    from export.targets.classifier import write_classifier

    written = write_classifier(
        path,
        ordered.clip,
        fold(ordered.artefact, ordered.clip),
        tuple(ordered.artefact.metadata["classes"]),
        ordered.real.pictures,
        artefact_sha256=ordered.artefact.sha256,
        white_level=int(ordered.artefact.metadata.get("white_level", 0)),
        recipe=ordered.recipe,
        labels=ordered.real.labels,
        calibration=ordered.real.calibration,
        force=ordered.force,
    )
    return written.to_dict(), str(written)


def _bundle(folder: Path, ordered: _Ordered) -> Told:
    """Write a bundle."""
    from export.targets.bundle import write_bundle

    bundle = write_bundle(
        folder,
        ordered.clip,
        ordered.artefact,
        ordered.real.pictures,
        recipe=ordered.recipe,
        force=ordered.force,
    )
    report = bundle.classifier.to_dict() | {
        "output": str(folder),
        "class_vectors_largest": bundle.vectors,
    }
    added = f"against torch, class vectors: largest difference {bundle.vectors:.3g}"
    return report, f"{bundle.classifier}\n{added}"


def _repository(folder: Path, ordered: _Ordered, *, tensorrt: bool) -> Told:
    """Write a model of a Triton repository; its folder is not touched before all is checked."""
    from export.targets.triton import TritonSettings, write_repository

    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.onnx"
        report, lines = _classifier(graph, ordered)
        write_repository(folder, graph, TritonSettings(tensorrt=tensorrt))
    output = str(folder / "1" / graph.name)
    lines = lines.replace(str(graph), output)
    return report | {"output": output}, f"{lines}\n{folder}: a model of a Triton repository"


def _page(folder: Path, ordered: _Ordered) -> Told:
    """Write a page for browsers; its folder is not touched before the graph is measured."""
    from export.runtime.safety.read_model import read_model
    from export.runtime.session import open_classifier
    from export.targets.web import write_web

    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "classifier.onnx"
        report, lines = _classifier(graph, ordered)
        model, output = read_model(graph), str(folder / graph.name)
    size = write_web(folder, model, open_classifier(model, provider="cpu")[1])
    lines = lines.replace(str(graph), output)
    lines += f"\n{folder}: a page for any static web server, {size / 1e6:.1f} MB"
    return report | {"output": output}, lines


def _real_images(
    flat: Mapping[str, "Scalar"],
    count: int,
    clip: "FrozenClip",
    classes: tuple[str, ...],
    *,
    required: bool,
) -> "RealImages":
    """Return the images of the settings, or none where a run's own are not here."""
    from export.fold.load import no_images, real_images

    if "data.source" not in flat:
        return no_images(clip.preprocessing)
    try:
        return real_images(flat, count, clip.preprocessing, classes)
    except DataError:
        if required:
            raise
        return no_images(clip.preprocessing)
