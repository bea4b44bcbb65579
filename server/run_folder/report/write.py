"""Write a run's report: one HTML page that loads nothing from the network."""

from pathlib import Path
from typing import Any

from fedprompt.run_folder import RunFolder
from fedprompt.storage import write_atomic
from server.run_folder.report.formats import percent, points, size
from server.run_folder.report.headline import headline
from server.run_folder.report.page import render
from server.run_folder.report.run import Run, read_run


def write_report(run: Path, beside: Path | None, path: Path) -> tuple[dict[str, Any], str]:
    """Write the page of a run and return what is in it, for a program and for a person.

    Parameters
    ----------
    run
        Folder of the run.
    beside
        Folder of another run, scored on the same images, to compare with.
    path
        HTML file to write.

    Raises
    ------
    FedpromptError
        A folder holds no run, or its record is damaged; nothing is written.
    """
    reported = read_run(run)
    page = render(reported, read_run(beside) if beside else None)
    encoded = page.encode(errors="replace")  # a folder's name may not be UTF-8
    write_atomic(path, encoded)
    return _result(reported, path, len(encoded)), _lines(reported, path, len(encoded))


def _result(run: Run, path: Path, length: int) -> dict[str, Any]:
    figures = headline(run.records, run.artefact).to_dict()
    return {"report": str(path), "bytes": length, **figures, "predictions": bool(run.predictions)}


def _lines(run: Run, path: Path, length: int) -> str:
    figures = headline(run.records, run.artefact)
    lines = f"{path} ({size(length)})"
    if figures.gain is not None:
        lines += (
            f": accuracy {percent(figures.accuracy)}, zero-shot "
            f"{percent(figures.zero_shot_accuracy)}, gain {points(figures.gain)} points"
        )
    if run.predictions is None:
        name = RunFolder(run.path).predictions.name
        lines += f"\nno {name} yet: fedprompt eval {run.path} adds a confusion matrix"
    return lines
