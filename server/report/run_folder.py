"""Gather what a run's folder holds; each part may be missing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.errors import CheckpointError
from server import outcome
from server.report.lines import Line, read_lines
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
    settings: Mapping[str, Any] = field(default_factory=dict)  # flat: "section.key"
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
            f"{PREDICTIONS}; make one with fedprompt simulate --set server.output={path}"
        )
    settings, ended = _read_settings(path / SETTINGS), outcome.read(path)
    return RunFolder(path, tuple(lines), torn, artefact, predictions, settings, ended)


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no table of settings; delete it")
    return found
