"""``fedprompt bench``: say how fast a classifier file answers here, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprompt.options import JsonOption, show

if TYPE_CHECKING:
    from export.runtime.bench import Measured


def bench(
    model: Annotated[
        Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
    ],
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images a call; repeatable. [default: 1, 16]")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=0, help="On the CPU; repeatable. 0, the default: ONNX Runtime's choice."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."
        ),
    ] = None,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Record CUDA's work and replay it.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.001, help="Of timed calls, for each line.")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Time calls of a classifier, from images in memory and from JPEG bytes.

    One caller, one call after the other, on a machine that had better do nothing else.
    """
    from export.runtime.artifact_kind import classifier_of
    from export.runtime.bench import machine, measure
    from export.runtime.open import open_exported

    found: list[Measured] = []
    for count in threads or [0]:
        classifier = open_exported(model, provider=provider, threads=count, cuda_graphs=cuda_graphs)
        for size in batch or [1, 16]:
            found += measure(classifier, batch=size, seconds=seconds, threads=count)
    report = {
        "model": str(model),
        "bytes": classifier_of(model).stat().st_size,
        "machine": machine(),
        "providers": list(classifier.providers),
        "cuda_graphs": cuda_graphs,
        "measured": [line.to_dict() for line in found],
    }
    show(report, _lines(report, found), as_json=json)


def _lines(report: dict[str, Any], found: list["Measured"]) -> str:
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
        for m in found
    ]
    return "\n".join(lines)
