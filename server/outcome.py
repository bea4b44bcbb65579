"""Leave how a run ended in its folder, so that another process can tell: done, or why not."""

import json
from pathlib import Path
from typing import Any

from fedprompt import errors
from fedprompt.errors import FedpromptError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic

NAME = "outcome.json"


def clear(folder: Path) -> None:
    """Forget how an earlier run in this folder ended.

    Raises
    ------
    StorageError
        The folder is a file, or may not be changed.
    """
    try:
        (folder / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}; give another --output folder"
        ) from error


def write_success(folder: Path, artefact: str) -> None:
    """Note that the run is done, with the hash of its artefact."""
    write_atomic(folder / NAME, canonical_json({"artefact": artefact, "error": None}))


def write_failure(folder: Path, error: FedpromptError) -> None:
    """Note the error that ended the run."""
    told = {"error": type(error).__name__, "message": str(error)}
    write_atomic(folder / NAME, canonical_json(told))


def read(folder: Path) -> dict[str, Any] | None:
    """Return how the run ended; None if it has not, or was killed."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def raise_failure(folder: Path) -> None:
    """Raise the error that ended the run, if one did.

    Raises
    ------
    FedpromptError
        Of the same kind as in the process that failed, so that the exit code is the same.
    """
    found = read(folder)
    if not found or not found.get("error"):
        return
    kind = getattr(errors, str(found["error"]), FedpromptError)
    raise kind(str(found.get("message", "")))
