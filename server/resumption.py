"""Tell from a run's folder where it stands, and what another configuration would change in it."""

from fedprompt.config import Flat, defaults
from fedprompt.errors import CheckpointError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from server.checkpoint import load_latest
from server.tuning import FREE


def last_committed(folder: RunFolder, settings: Flat, run: str) -> RoundRecord | None:
    """Return the record of the last committed round; None if there is none.

    Raises
    ------
    CheckpointError
        The checkpoints are damaged, or of a run with other settings, which are named.
    """
    try:
        state = load_latest(folder.checkpoints, run)
    except CheckpointError as error:
        if found := difference(folder, settings):
            raise CheckpointError(
                f"{folder.path} was begun with other settings: {found}; give it back its own, or "
                "give another --output"
            ) from error
        raise
    records = folder.records() if state else []
    return next((record for record in records if state and record.round == state.round), None)


def difference(folder: RunFolder, settings: Flat) -> str:
    """Return the settings in which a run differs from its folder's, both values shown."""
    own = folder.settings()
    if not own:
        return ""
    was, now = defaults() | own, defaults() | settings
    changed = [key for key in now if key not in FREE and now[key] != was.get(key)]
    return ", ".join(f"{key} was {was.get(key)!r}, is {now[key]!r}" for key in changed)
