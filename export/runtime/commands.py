"""The commands that run without torch: predict, bench, serve, verify, swap and rollback."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprompt.errors import ConfigError, DataError
from fedprompt.options import JsonOption, show

if TYPE_CHECKING:
    from export.runtime import Classifier, OpenClassifier, Prediction
    from export.runtime.bench import Timing

ModelArgument = Annotated[
    Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
]
ProviderOption = Annotated[
    str | None,
    typer.Option(help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."),
]
PixelsOption = Annotated[int, typer.Option(help="Largest image, width times height.")]
BundleArgument = Annotated[Path, typer.Argument(help="Folder of a bundle.")]


def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    provider: ProviderOption = None,
    add_class: Annotated[
        list[str] | None,
        typer.Option(help="One more class for these images, of a bundle; repeatable."),
    ] = None,
    pixels: PixelsOption = 64_000_000,
    json: JsonOption = False,
) -> None:
    """Name the most probable classes of each image.

    An image that cannot be read is reported, the others are still classified.
    """
    classifier = _open(model, provider, add_class or [], pixels)
    predictions, errors = _predict_each(classifier, images, top_k)
    report = {
        "model": str(model),
        "providers": list(classifier.providers),
        "results": [prediction.to_dict() for prediction in predictions],
        "errors": errors,
    }
    lines = [f"{model} on {classifier.providers[0]}", *map(_line, predictions)]
    show(report, "\n".join(lines), as_json=json)
    if errors:
        listed = "; ".join(error["error"] for error in errors)
        raise DataError(f"{len(errors)} of {len(images)} images could not be read: {listed}")


def _open(
    model: Path, provider: str | None, added: list[str], max_pixels: int
) -> "Classifier | OpenClassifier":
    """Open a file or a bundle, with more classes."""
    from export.runtime import Classifier
    from export.runtime.open import open_exported

    classifier = open_exported(model, provider=provider, max_pixels=max_pixels)
    for name in added:
        if isinstance(classifier, Classifier):
            raise DataError(
                f"{model} has its classes inside and takes no --add-class; give a bundle, which "
                "`fedprompt export --open-vocabulary` writes"
            )
        classifier.add_class(name)
    return classifier


def _predict_each(
    classifier: "Classifier | OpenClassifier", images: list[Path], top_k: int, batch_size: int = 16
) -> tuple[list["Prediction"], list[dict[str, str]]]:
    """Predict in batches; a batch with a bad image is taken one by one."""
    predictions: list[Prediction] = []
    errors: list[dict[str, str]] = []
    for begin in range(0, len(images), batch_size):
        part = images[begin : begin + batch_size]
        try:
            predictions += classifier.predict(part, top_k=top_k)
        except DataError:
            for path in part:
                try:
                    predictions += classifier.predict([path], top_k=top_k)
                except DataError as error:
                    errors.append({"image": str(path), "error": str(error)})
    return predictions, errors


def _line(prediction: "Prediction") -> str:
    ranked = zip(prediction.classes, prediction.probabilities, strict=True)
    line = f"{prediction.name}: " + ", ".join(f"{name} {share:.1%}" for name, share in ranked)
    # names are a stranger's: a line break or a change of direction would say something else
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def bench(
    model: ModelArgument,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images a call; repeatable. [default: 1, 16]")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=0, help="On the CPU; repeatable. 0, the default: ONNX Runtime's choice."),
    ] = None,
    provider: ProviderOption = None,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Record CUDA's work and replay it.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.001, help="Of timed calls, for each line.")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Time calls of a classifier, from images in memory and from JPEG bytes.

    One caller, one call after the other, on a machine that had better do nothing else.
    """
    from export.runtime.bench import machine, measure
    from export.runtime.open import classifier_of, open_exported

    timings: list[Timing] = []
    for count in threads or [0]:
        classifier = open_exported(model, provider=provider, threads=count, cuda_graphs=cuda_graphs)
        for size in batch or [1, 16]:
            timings += measure(classifier, batch=size, seconds=seconds, threads=count)
    report = {
        "model": str(model),
        "bytes": classifier_of(model).stat().st_size,
        "machine": machine(),
        "providers": list(classifier.providers),
        "cuda_graphs": cuda_graphs,
        "measured": [timing.to_dict() for timing in timings],
    }
    show(report, _timing_table(report, timings), as_json=json)


def _timing_table(report: dict[str, Any], timings: list["Timing"]) -> str:
    here = report["machine"]
    lines = [
        f"{report['model']} on {', '.join(report['providers'])}",
        f"{here['processor']}, {here['cores']} cores, {here['system']}, "
        f"onnxruntime {here['onnxruntime']}",
        f"{'from':8}{'batch':>6}{'threads':>9}{'images/s':>11}{'p50 ms':>10}{'p90 ms':>10}"
        f"{'p99 ms':>10}{'calls':>8}",
    ]
    lines += [
        f"{m.source:8}{m.batch:6}{m.threads or 'auto':>9}{m.images_per_second:11.1f}"
        f"{m.p50_ms:10.2f}{m.p90_ms:10.2f}{m.p99_ms:10.2f}{m.calls:8}"
        for m in timings
    ]
    return "\n".join(lines)


def serve(
    model: ModelArgument,
    address: Annotated[
        str, typer.Option(help="host:port to listen on; the service has no password.")
    ] = "127.0.0.1:8080",
    provider: ProviderOption = None,
    threads: Annotated[int, typer.Option(min=0, help="On the CPU; 0: ONNX Runtime's choice.")] = 0,
    megabytes: Annotated[float, typer.Option(help="Largest body of a request.")] = 20.0,
    pixels: PixelsOption = 64_000_000,
    seconds: Annotated[float, typer.Option(help="Longest time of a request.")] = 30.0,
) -> None:
    """Answer POST /predict, GET /health and GET /metrics until SIGTERM; JSON lines are its log."""
    from export.runtime.open import open_exported
    from export.runtime.serving.limits import Limits
    from export.runtime.serving.run import run
    from export.runtime.serving.service import Service
    from fedprompt.processes import logs
    from fedprompt.protocol.address import split

    host, port = split(address)
    if not math.isfinite(megabytes):
        raise ConfigError(f"megabytes = {megabytes}; expected more than 0, and finite")
    limits = Limits(max_bytes=round(megabytes * 1e6), max_pixels=pixels, seconds=seconds)
    logs.configure(None, as_json=not sys.stderr.isatty())
    classifier = open_exported(model, provider=provider, threads=threads)
    classifier.warm_up(limits.batch)
    run(Service(classifier, limits), host, port)


def verify(
    model: ModelArgument,
    public_key: Annotated[
        Path | None,
        typer.Option(help="PEM file of who must have signed it; checked before it is opened."),
    ] = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
) -> None:
    """Check a file's safety and repeat its own test: seeded images, the answers torch gave."""
    from export.parity.verify import require_vectors, verify_exported

    signature = _check_signature(model, public_key)
    verified = verify_exported(model, provider)
    metadata, parity = verified.classifier.metadata, verified.parity
    recorded = metadata.parity or {}
    report: dict[str, Any] = {
        "model": str(model),
        "providers": list(verified.classifier.providers),
        "signature": signature,
        "structure": verified.structure,
        "precision": metadata.precision,
        "ladder": list(metadata.ladder),
        "probes": parity.to_dict(),
        "at_export": recorded,
        "backbone": metadata.backbone,
        "artefact_sha256": metadata.artefact_sha256,
    }
    if verified.vector_difference is not None:
        report["class_vectors_largest"] = verified.vector_difference
    show(report, _verified_lines(report, str(parity)), as_json=json)
    if not (parity.holds or recorded.get("forced")):
        parity.require()
    if verified.vector_difference is not None:
        require_vectors(verified.vector_difference)


def _check_signature(model: Path, public_key: Path | None) -> str:
    """Check the signature by a key, if one is given; return a line about it."""
    from export.runtime.signature import signature_of

    if public_key is None:
        exists = signature_of(model).exists()
        return "not checked: give --public-key" if exists else "there is none"
    from export.targets.signing import check

    signature = check(model, public_key)
    return f"holds (files: {len(signature.files)}, key {signature.key[:16]}…)"


def _verified_lines(report: dict[str, Any], parity: str) -> str:
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


def swap(
    bundle: BundleArgument,
    artefact: Annotated[Path, typer.Argument(help="Folder of a prompt artefact, or of a run.")],
    json: JsonOption = False,
) -> None:
    """Serve an artefact's prompt from now on: same backbone and method, nothing is exported.

    The classes stay those of the bundle. Needs neither torch nor onnx.
    """
    from export.runtime.open_vocabulary.swap import swap as swap_prompt
    from fedprompt.artefact import load_artefact

    loaded = load_artefact(artefact)
    number = swap_prompt(bundle, loaded)
    report = {"bundle": str(bundle), "version": number, "artefact_sha256": loaded.sha256}
    show(report, f"{bundle} serves version {number}: {artefact}", as_json=json)


def rollback(
    bundle: BundleArgument,
    json: JsonOption = False,
) -> None:
    """Roll a bundle back to its previous version: its prompt and its classes."""
    from export.runtime.open_vocabulary.bundle import Bundle

    folder = Bundle(bundle)
    number = folder.roll_back()
    served = folder.manifest.served
    report = {
        "bundle": str(bundle),
        "version": number,
        "artefact_sha256": served.artefact_sha256,
        "classes": list(served.classes),
    }
    show(report, f"{bundle} serves version {number}, {len(served.classes)} classes", as_json=json)
