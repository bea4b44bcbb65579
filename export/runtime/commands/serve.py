"""``fedprompt serve``: answer over HTTP with a classifier file, without torch."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[
        Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
    ],
    address: Annotated[
        str, typer.Option(help="host:port to listen on; the service has no password.")
    ] = "127.0.0.1:8080",
    provider: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="On the CPU; 0: ONNX Runtime's choice.")] = 0,
    megabytes: Annotated[float, typer.Option(help="Largest body of a request.")] = 20.0,
    pixels: Annotated[int, typer.Option(help="Largest image, width times height.")] = 64_000_000,
    seconds: Annotated[float, typer.Option(help="Longest time of a request.")] = 30.0,
) -> None:
    """Answer POST /predict, GET /health and GET /metrics until SIGTERM; JSON lines are its log."""
    from export.runtime.open import open_exported
    from export.runtime.serving.limits import Limits
    from export.runtime.serving.run import run
    from export.runtime.serving.service import Service
    from fedprompt.errors import ConfigError
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
