"""``fedprompt verify``: check that a classifier file still answers as torch did."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedprompt.options import JsonOption, show


def verify(
    model: Annotated[Path, typer.Argument(help="A classifier.onnx.")],
    provider: Annotated[
        str | None, typer.Option(help="tensorrt, cuda or cpu; the best there is by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a file's safety and repeat its own test: seeded images, the answers torch gave."""
    from export.runtime import Classifier
    from export.verify import verify as measure

    structure = _check_structure(model)
    classifier = Classifier(model, provider=provider)
    parity = measure(classifier)
    recorded = classifier.metadata.parity or {}
    report = {
        "model": str(model),
        "providers": list(classifier.providers),
        "structure": structure,
        "probes": parity.to_dict(),
        "at_export": recorded,
        "backbone": classifier.metadata.backbone,
        "artefact_sha256": classifier.metadata.artefact_sha256,
    }
    show(report, _lines(report, str(parity)), as_json=json)
    if not (parity.holds or recorded.get("forced")):
        parity.require()


def _check_structure(model: Path) -> str:
    """Check every operator and tensor where the onnx package is installed."""
    try:
        from export.structure import parse_model
    except ImportError:
        return "not checked: the onnx package is not installed"
    from export.safety import read_model

    return f"{len(parse_model(read_model(model), str(model)).graph.node)} operators, all allowed"


def _lines(report: dict[str, Any], parity: str) -> str:
    measured = report["at_export"].get("images") or {}
    at_export = (
        f"{measured['images']} images, largest logit difference {measured['largest']:.3g}"
        if measured
        else "no real images were compared"
    )
    lines = [
        f"{report['model']} on {', '.join(report['providers'])}",
        f"structure: {report['structure']}",
        f"stored probes: {parity}",
        f"real images at export: {at_export}",
    ]
    if report["at_export"].get("forced"):
        lines.append("this file was forced past a breach of parity when it was exported")
    return "\n".join(lines)
