"""Tell from a run's folder where it stands, and what another configuration would change in it."""

from fedprompt import toml
from fedprompt.errors import CheckpointError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat, Scalar
from server.rounds.task_builder import FREE
from server.run_folder.checkpoint import load_latest

_BEFORE: Flat = {"server.rule": "product"}  # what a folder meant that does not tell its rule


def last_committed(folder: RunFolder, config: RunConfig, run: str) -> RoundRecord | None:
    """Return the record of the last committed round; None if there is none.

    Raises
    ------
    CheckpointError
        The checkpoints are damaged, or of a run with other settings, which are named.
    """
    try:
        state = load_latest(folder.checkpoints, run)
    except CheckpointError as error:
        if found := difference(folder, config):
            told = ", ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in found.items())
            own = ", ".join(f"{key} = {toml.dumps(was)}" for key, (was, _) in found.items())
            raise CheckpointError(
                f"{folder.path} was begun with other settings: {told}; to go on with it set {own}, "
                "or give another --output"
            ) from error
        raise
    records = folder.records() if state else []
    return next((record for record in records if state and record.round == state.round), None)


def difference(folder: RunFolder, config: RunConfig) -> dict[str, tuple[Scalar, Scalar]]:
    """Return the settings in which a run differs from its folder's: the folder's value, the run's.

    Empty where the folder's are missing or damaged.
    """
    own = folder.settings()
    if not own:
        return {}
    was, now = defaults() | _BEFORE | own, config.flat()
    changed = [key for key in now if key not in FREE and now[key] != was.get(key)]
    return {key: (was.get(key, ""), now[key]) for key in changed}
