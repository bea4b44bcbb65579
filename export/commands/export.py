"""``fedprompt export``: from a prompt artefact to one ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedprompt.options import ConfigOption, JsonOption, SetOption, show

if TYPE_CHECKING:
    from export.write import Written


def export(
    artefact: Annotated[Path, typer.Argument(help="Folder of a prompt artefact, or of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.")] = Path(
        "classifier.onnx"
    ),
    data: Annotated[
        str,
        typer.Option(help="Real images for the comparison with torch: as data.source in a config."),
    ] = "",
    images: Annotated[int, typer.Option(min=1, help="How many of them to compare.")] = 256,
    flavour: Annotated[
        Literal["ort", "portable"],
        typer.Option(
            help="ort: ONNX Runtime's fused operators, for CPU and CUDA. "
            "portable: standard operators only, for TensorRT, OpenVINO and browsers."
        ),
    ] = "ort",
    force: Annotated[
        bool, typer.Option("--force", help="Write in spite of a breach of parity; it is recorded.")
    ] = False,
    config: ConfigOption = None,
    override: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Fold a prompt into one ONNX file: uint8 images in, logits out, torch's answers checked."""
    from export.load import fold, load_clip, real_images
    from export.write import write_classifier
    from fedprompt.config import load, of_run
    from fedprompt.errors import DataError
    from fedprompt.prompts.artefacts import load_artefact

    given = load(config, override or ()) | ({"data.source": data} if data else {})
    flat = of_run(artefact) | given
    loaded = load_artefact(artefact)
    clip = load_clip(loaded, flat)
    try:
        count = images if "data.source" in flat else 0
        pictures = real_images(flat, count, clip.preprocessing)
    except DataError:
        if "data.source" in given:
            raise
        pictures = real_images(flat, 0, clip.preprocessing)  # the run's images are not here
    written = write_classifier(
        output,
        clip,
        fold(loaded, clip),
        tuple(loaded.metadata["classes"]),
        pictures,
        artefact_sha256=loaded.sha256,
        flavour=flavour,
        force=force,
    )
    show(_report(written), _lines(written), as_json=json)


def _report(written: "Written") -> dict[str, Any]:
    return {
        "output": str(written.path),
        "bytes": written.size,
        "nodes": written.nodes,
        "flavour": written.flavour,
        "parity": None if written.parity is None else written.parity.to_dict(),
        "probes": written.probes.to_dict(),
        "forced": written.forced,
    }


def _lines(written: "Written") -> str:
    real = written.parity or "no real images were compared: give --data"
    lines = [
        f"wrote {written.path}: {written.size / 1e6:.1f} MB, {written.nodes} operators, "
        f"{written.flavour}",
        f"against torch, real images: {real}",
        f"against torch, stored probes: {written.probes}",
    ]
    if written.forced:
        lines.append("the bounds are broken and the file was forced; its metadata says so")
    return "\n".join(lines)
