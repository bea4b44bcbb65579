"""Leave how a run ended in its folder, so that another process can tell: done, or why not.

An error of our own says in its message what to do, and ends the run. Any other is a bug, or the end
of a process that the run needs: its kind, place, cause and the site whose reply was being read are
told, and a supervisor may try again.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fedprompt import errors
from fedprompt.errors import FedpromptError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.run_folder import RunFolder
from fedprompt.storage import write_atomic
from fedprompt.text import one_line

_ROOT = Path(__file__).parents[2]
_OURS = ("server", "client", "fedprompt")  # packages below it whose lines are named as places
_LONGEST = 300  # characters of one error's own words


class Outcome(BaseModel):
    """Say how a run ended: with an artefact's hash, or with the kind and text of an error."""

    model_config = ConfigDict(frozen=True)

    artefact: str | None = None
    error: str | None = None  # name of its class
    message: str = ""
    crashed: bool = False  # not by an error of our own: another try may go better


def clear(folder: Path) -> None:
    """Forget how an earlier run in this folder ended.

    Raises
    ------
    StorageError
        The folder is a file, or may not be changed.
    """
    try:
        RunFolder(folder).outcome.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}; give another --output folder"
        ) from error


def write_success(folder: Path, artefact: str) -> None:
    """Note that the run is done, with the hash of its artefact."""
    _write(folder, Outcome(artefact=artefact, error=None))


def write_failure(folder: Path, error: Exception) -> None:
    """Note the error that ended the run."""
    crashed = not isinstance(error, FedpromptError)
    message = describe(error) if crashed else str(error)
    _write(folder, Outcome(error=type(error).__name__, message=message, crashed=crashed))


def _write(folder: Path, outcome: Outcome) -> None:
    content = canonical_json(outcome.model_dump(exclude_unset=True))
    write_atomic(RunFolder(folder).outcome, content)


@contextmanager
def blaming(site: object) -> Iterator[None]:
    """Say of an unexpected error which site's reply was being read."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while reading what site {site} sent")
        raise


def describe(error: BaseException) -> str:
    """Return an unexpected error in one line: kind, words, place, site and causes."""
    told = _words(error)
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        told += f"; caused by {_words(cause)}"
        error = cause
    return told


def _words(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    named = [(frame, _place(frame.filename)) for frame in frames]
    ours = [(frame, place) for frame, place in named if place] or named[-1:]
    told = f"{type(error).__name__}: {one_line(str(error), _LONGEST)}"
    if ours:
        frame, place = ours[-1]
        told += f" (at {place or frame.filename}:{frame.lineno}, {frame.name})"
    return ", ".join([told, *getattr(error, "__notes__", ())])


def _place(file: str) -> str:
    """Return a file of ours as it is called in the repository; empty for any other."""
    path = Path(file)
    relative = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
    return str(relative) if next(iter(relative.parts), "") in _OURS else ""


def read(folder: Path) -> Outcome | None:
    """Return how the run ended; None if it has not, or was killed."""
    try:
        return Outcome.model_validate_json(RunFolder(folder).outcome.read_bytes())
    except (OSError, ValidationError):
        return None


def raise_failure(folder: Path) -> None:
    """Raise the error that ended the run, if one did.

    Raises
    ------
    FedpromptError
        Of the same kind as in the process that failed, so that the exit code is the same.
    """
    outcome = read(folder)
    if outcome and outcome.error:
        raise getattr(errors, outcome.error, FedpromptError)(outcome.message)
