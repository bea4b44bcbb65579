"""``fedprompt verify``: check whose a classifier is, and that it still answers as torch did."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprompt.errors import GraphError, ParityError
from fedprompt.options import JsonOption, show

if TYPE_CHECKING:
    from export.parity.compare import Parity
    from export.runtime import Classifier


def verify(
    model: Annotated[
        Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
    ],
    public_key: Annotated[
        Path | None,
        typer.Option(help="PEM file of who must have signed it; checked before it is opened."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a file's safety and repeat its own test: seeded images, the answers torch gave."""
    signature = _check_signature(model, public_key)
    structure, classifier, parity, vectors = _measure(model, provider)
    recorded = classifier.metadata.parity or {}
    report: dict[str, Any] = {
        "model": str(model),
        "providers": list(classifier.providers),
        "signature": signature,
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
    if vectors is not None:
        _require(vectors)


def _check_signature(model: Path, public_key: Path | None) -> str:
    """Check the signature by a key, or say that nobody did."""
    from export.runtime.signature import signature_of

    if public_key is None:
        there = signature_of(model).exists()
        return "not checked: give --public-key" if there else "there is none"
    from export.targets.signing import check

    signature = check(model, public_key)
    return f"holds (files: {len(signature.files)}, key {signature.key[:16]}…)"


def _require(vectors: float) -> None:
    """Refuse class vectors that differ from torch's by too much."""
    from export.parity.verify_bundle import VECTOR_BOUND

    if not vectors <= VECTOR_BOUND:
        raise ParityError(
            f"class vectors differ from torch's by {vectors:.3g}; expected at most {VECTOR_BOUND:g}"
        )


def _measure(model: Path, provider: str | None) -> "tuple[str, Classifier, Parity, float | None]":
    """Return what is said of the graphs, the classifier, and how far it and its vectors lie off."""
    from export.parity.verify import verify as repeat
    from export.runtime import Classifier
    from export.runtime.artifact_kind import classifier_of, is_bundle

    graph = classifier_of(model)
    if is_bundle(model):
        from export.parity.verify_bundle import verify_bundle

        names = ("classifier.onnx", "text_encoder.onnx")
        structure = "; ".join(_check_structure(model / name) for name in names)
        return structure, *verify_bundle(model, provider)
    structure = _check_structure(graph)
    classifier = Classifier(graph, provider=provider)
    return structure, classifier, repeat(classifier), None


def _check_structure(model: Path) -> str:
    """Check every operator and tensor."""
    from export.runtime.safety.read_model import read_model
    from export.runtime.safety.safe_graph import SafeGraph

    try:
        return f"{SafeGraph(read_model(model)).nodes} operators, all allowed"
    except GraphError as error:
        raise GraphError(f"{model}: {error}") from None


def _lines(report: dict[str, Any], parity: str) -> str:
    measured = report["at_export"].get("images") or {}
    at_export = (
        f"{measured['images']} images, largest logit difference {measured['largest']:.3g}"
        if measured
        else "no real images were compared"
    )
    lines = [
        f"{report['model']}, {report['precision']}, on {', '.join(report['providers'])}",
        f"signature: {report['signature']}",
        f"structure: {report['structure']}",
        f"stored probes: {parity}",
        f"real images at export: {at_export}",
    ]
    if "class_vectors_largest" in report:
        lines.append(f"class vectors: largest difference {report['class_vectors_largest']:.3g}")
    if report["at_export"].get("forced"):
        lines.append("this file was forced past a breach of parity when it was exported")
    return "\n".join(lines)
