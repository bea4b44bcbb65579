"""Gather what a run's folder holds; each part may be missing."""

from dataclasses import dataclass, field
from pathlib import Path

from fedprompt.artefact import Artefact
from fedprompt.errors import CheckpointError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat
from server.run_folder import run_status
from server.run_folder.report.predictions import Predictions, read_predictions
from server.run_folder.run_status import Outcome


@dataclass(frozen=True)
class Run:
    """Hold a run's record, prompt and predictions."""

    path: Path
    records: tuple[RoundRecord, ...] = ()
    torn: bool = False  # the record ends in half a line
    artefact: Artefact | None = None
    predictions: Predictions | None = None
    settings: Flat = field(default_factory=dict)
    ended: Outcome | None = None  # None: not at all


def read_run(path: Path) -> Run:
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
    folder = RunFolder(path)
    records, torn = folder.checked_records()
    artefact = Artefact.load(folder.artefact) if folder.artefact.is_dir() else None
    predictions = read_predictions(folder.predictions)
    if not (records or artefact or predictions):
        raise CheckpointError(
            f"{path} holds no run: found neither {folder.record.name} with a whole round nor "
            f"{folder.artefact.name}/ nor {folder.predictions.name}; make one with fedprompt "
            "simulate --output FOLDER"
        )
    settings, ended = folder.checked_settings(), run_status.read(path)
    return Run(path, tuple(records), torn, artefact, predictions, settings, ended)
