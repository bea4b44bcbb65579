"""``fedprompt export`` and ``fedprompt sign``: from a prompt artefact to what is deployed."""

from functools import partial
from pathlib import Path
from typing import Annotated

import click
import typer

from export.precision import Precision
from export.runtime.commands import ModelArgument
from export.targets import TARGETS, recipe_of
from export.targets.triton import TritonSettings, write_repository
from fedprompt.errors import ConfigError
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.storage import check_writable

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
    from export.fold.load import load_clip, settings_images
    from export.targets.bundle import export_bundle
    from export.targets.card import RunRecord, card_of, write_card
    from export.targets.classifier import Content, export_classifier
    from fedprompt.artefact import load_artefact
    from fedprompt.run_folder import RunFolder
    from fedprompt.settings.run_config import load_flat

    recipe = recipe_of(target, precision)
    _check_options(target, precision, tensorrt=tensorrt, open_vocabulary=open_vocabulary)
    place = output or Path("bundle" if open_vocabulary else TARGETS[target].output)
    is_folder = open_vocabulary or TARGETS[target].is_folder
    check_writable(place, "folder" if is_folder else "file")
    check_writable(card_of(place, folder=is_folder), "file")
    given = load_flat(config, override or ()) | ({"data.source": data} if data else {})
    settings = RunFolder(artefact).scoring_settings() | given
    loaded = load_artefact(artefact)
    clip = load_clip(loaded, settings)
    count = images or (_IMAGES_EXACT if precision == "fp32" else _IMAGES)
    real = settings_images(settings, count, loaded, clip, required="data.source" in given)
    if open_vocabulary:
        exported = export_bundle(place, loaded, clip, real.pictures, recipe, force=force)
    else:
        content = Content.of(loaded, clip)
        write = TARGETS[target].write
        if tensorrt:
            write = partial(write_repository, settings=TritonSettings(tensorrt=True))
        exported = export_classifier(place, content, real, recipe, write=write, force=force)
    card = write_card(exported, loaded, RunRecord.find(artefact, loaded))
    show(exported.to_dict() | {"card": str(card)}, f"{exported}\nmodel card: {card}", as_json=json)


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


def sign(
    model: ModelArgument,
    key: Annotated[Path, typer.Option(help="Private elliptic-curve key, PEM, without a password.")],
    json: JsonOption = False,
) -> None:
    """Sign the SHA-256 of every file with a local key, in OpenSSF's format for models.

    The signature of a folder is model.sig in it; that of FILE is FILE.sig beside it.
    """
    from export.runtime.signature import Signature, signature_of
    from export.targets.signing import sign as write_signature

    check_writable(signature_of(model), "file")
    place = write_signature(model, key)
    signature = Signature.read(place)
    report = {
        "model": str(model),
        "signature": str(place),
        "key_sha256": signature.key,
        "files": signature.files,
    }
    line = f"wrote {place} (files: {len(signature.files)}, key {signature.key[:16]}…)"
    show(report, line, as_json=json)
