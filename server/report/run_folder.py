"""Gather what a run's folder holds; each part may be missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from fedprompt.artefact import Artefact
from fedprompt.config import Flat
from fedprompt.errors import CheckpointError
from server import outcome
from server.report.lines import Line, explain, read_lines
from server.report.predictions import Predictions, read_predictions

RECORD, ARTEFACT, PREDICTIONS = "rounds.jsonl", "artefact", "predictions.json"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class RunFolder:
    """Hold a run's record, prompt and predictions."""

    path: Path
    lines: tuple[Line, ...] = ()
    torn: bool = False  # the record ends in half a line
    artefact: Artefact | None = None
    predictions: Predictions | None = None
    settings: Flat = field(default_factory=dict)
    ended: Mapping[str, Any] | None = None  # with which error; None: not at all


def read_run(path: Path) -> RunFolder:
    """Read a run's folder.

    Raises
    ------
    CheckpointError
        The folder holds no run, or its record is damaged.
    ArtefactError
        The prompt's files are damaged.
    DataError
        The predictions are damaged.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is no folder; give the one a run wrote, as runs/latest")
    lines, torn = read_lines(path / RECORD)
    artefact = Artefact.load(path / ARTEFACT) if (path / ARTEFACT).is_dir() else None
    predictions = read_predictions(path / PREDICTIONS)
    if not (lines or artefact or predictions):
        raise CheckpointError(
            f"{path} holds no run: found neither {RECORD} with a whole round nor {ARTEFACT}/ nor "
            f"{PREDICTIONS}; make one with fedprompt simulate --output FOLDER"
        )
    settings, ended = _read_settings(path / SETTINGS), outcome.read(path)
    return RunFolder(path, tuple(lines), torn, artefact, predictions, settings, ended)


def trained_arrays(artefact: Artefact) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that travelled; ``trained`` names them in the artefact."""
    names = artefact.metadata.get("trained")
    if not isinstance(names, list):
        names = [name for name in artefact.tensors if not name.endswith(".start")]
    return {name: array for name, array in artefact.tensors.items() if name in names}


def _read_settings(path: Path) -> Flat:
    try:
        return TypeAdapter(Flat).validate_json(path.read_bytes()) if path.exists() else {}
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged ({explain(error)}); delete it") from None
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror}") from None
