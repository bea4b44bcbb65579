"""Tell from a run's folder where it stands, and what another configuration would change in it."""

from pathlib import Path

from fedprompt.config import Flat, defaults
from fedprompt.errors import CheckpointError
from server import record
from server.checkpoint import load_latest
from server.record import Line
from server.rounds import CHECKPOINTS, RECORD
from server.tuning import FREE


def last_line(folder: Path, settings: Flat, run: str) -> Line | None:
    """Return the record's line of the last committed round; None if there is none.

    Raises
    ------
    CheckpointError
        The checkpoints are damaged, or of a run with other settings, which are named.
    """
    try:
        state = load_latest(folder / CHECKPOINTS, run)
    except CheckpointError as error:
        if found := difference(folder, settings):
            raise CheckpointError(
                f"{folder} was begun with other settings: {found}; give it back its own, or give "
                "another --output"
            ) from error
        raise
    lines = record.read(folder / RECORD) if state else []
    return next((line for line in lines if state and line["round"] == state.round), None)


def difference(folder: Path, settings: Flat) -> str:
    """Return the settings in which a run differs from its folder's, both values shown."""
    own = record.read_settings(folder)
    if not own:
        return ""
    was, now = defaults() | own, defaults() | settings
    changed = [key for key in now if key not in FREE and now[key] != was.get(key)]
    return ", ".join(f"{key} was {was.get(key)!r}, is {now[key]!r}" for key in changed)
