"""``fedprompt verify``: check that a classifier file still answers as torch did."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedprompt.errors import ParityError
from fedprompt.options import JsonOption, show


def verify(
    model: Annotated[Path, typer.Argument(help="A classifier.onnx, or a bundle's folder.")],
    provider: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a file's safety and repeat its own test: seeded images, the answers torch gave."""
    from export.runtime import Classifier
    from export.verify import verify as measure

    vectors = None
    if model.is_dir():
        from export.verify_bundle import VECTOR_BOUND, verify_bundle

        names = ("classifier.onnx", "text_encoder.onnx")
        structure = "; ".join(_check_structure(model / name) for name in names)
        classifier, parity, vectors = verify_bundle(model, provider)
    else:
        structure = _check_structure(model)
        classifier = Classifier(model, provider=provider)
        parity = measure(classifier)
    recorded = classifier.metadata.parity or {}
    report: dict[str, Any] = {
        "model": str(model),
        "providers": list(classifier.providers),
        "structure": structure,
        "precision": classifier.metadata.precision,
        "ladder": list(classifier.metadata.ladder),
        "probes": parity.to_dict(),
        "at_export": recorded,
        "backbone": classifier.metadata.backbone,
        "artefact_sha256": classifier.metadata.artefact_sha256,
    }
    if vectors is not None:
        report["class_vectors_largest"] = vectors
    show(report, _lines(report, str(parity)), as_json=json)
    if not (parity.holds or recorded.get("forced")):
        parity.require()
    if vectors is not None and not vectors <= VECTOR_BOUND:
        raise ParityError(
            f"class vectors differ from torch's by {vectors:.3g}; expected at most {VECTOR_BOUND:g}"
        )


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
        f"{report['model']}, {report['precision']}, on {', '.join(report['providers'])}",
        f"structure: {report['structure']}",
        f"stored probes: {parity}",
        f"real images at export: {at_export}",
    ]
    if "class_vectors_largest" in report:
        lines.append(f"class vectors: largest difference {report['class_vectors_largest']:.3g}")
    if report["at_export"].get("forced"):
        lines.append("this file was forced past a breach of parity when it was exported")
    return "\n".join(lines)
