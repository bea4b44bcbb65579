"""``fedprompt report``: one HTML page of a run."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from fedprompt.cli import COMMANDS, resolve
from fedprompt.options import JsonOption, show
from fedprompt.run_folder import RunFolder
from fedprompt.storage import check_writable, write_atomic
from server.report.formats import percent, points, size
from server.report.headline import headline
from server.report.page import render
from server.report.run import Run, read_run


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as simulate leaves it.")],
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write; RUN/report.html by default.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Score these images first, as `fedprompt eval RUN --set data.source=SOURCE`.",
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Another run, scored on the same images, to compare with."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make one self-contained HTML page of a run: curves, bytes, sites, refusals, predictions.

    It loads nothing from the network and can be mailed as it is.
    Example: fedprompt report runs/demo
    """
    path = output or RunFolder(run).report
    check_writable(path, "file")
    found = read_run(run)
    if data:
        _evaluate(run, data)
        found = read_run(run)
    other = read_run(beside) if beside else None
    page = render(found, other).encode(errors="replace")  # a folder's name may not be UTF-8
    write_atomic(path, page)
    show(_result(found, path, len(page)), _tell(found, path, len(page)), as_json=json)


def _evaluate(run: Path, source: str) -> None:
    """Let ``fedprompt eval`` leave its predictions in the run's folder."""
    with redirect_stdout(StringIO()):  # this command prints one result, its own
        resolve(COMMANDS["eval"][0])(run, None, [f"data.source={source}"], True)


def _result(run: Run, path: Path, length: int) -> dict[str, Any]:
    figures = headline(run.records, run.artefact).to_dict()
    return {"report": str(path), "bytes": length, **figures, "predictions": bool(run.predictions)}


def _tell(run: Run, path: Path, length: int) -> str:
    figures = headline(run.records, run.artefact)
    told = f"{path} ({size(length)})"
    if figures.gain is not None:
        told += (
            f": accuracy {percent(figures.accuracy)}, zero-shot "
            f"{percent(figures.zero_shot_accuracy)}, gain {points(figures.gain)} points"
        )
    if run.predictions is None:
        name = RunFolder(run.path).predictions.name
        told += f"\nno {name} yet: fedprompt eval {run.path} adds a confusion matrix"
    return told
