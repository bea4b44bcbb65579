"""Remember when the server was last heard and what it last said no to: ``contact.json``."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedprompt.errors import StorageError
from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic

REFUSED = 77  # exit code of the SuperNode when the server does not take this site's key
_PAUSE = 20.0  # seconds between two writes of the same news


@dataclass(frozen=True)
class Contact:
    """Hold what is known of the server: UTC times, ISO 8601, empty while it never happened."""

    heard: str = ""  # the last answer
    refused: str = ""  # the last time the server did not take this site's key
    trouble: str = ""  # why the last request came to nothing; empty after an answer


class Diary:
    """Write down what becomes of requests, at most every few seconds.

    Parameters
    ----------
    path
        Where it is written; a disk that is full stops no request.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = read(path)
        self._kind, self._written = "", 0.0

    def heard(self) -> None:
        """Note an answer."""
        self._note("heard", Contact(_now(), self._known.refused))

    def refused(self) -> None:
        """Note that the server did not take this site's key."""
        self._note("refused", Contact(self._known.heard, _now(), "the server refuses this key"))

    def trouble(self, why: str) -> None:
        """Note that nobody answered."""
        self._note(why, Contact(self._known.heard, self._known.refused, why))

    def _note(self, kind: str, news: Contact) -> None:
        self._known = news
        if kind == self._kind and time.monotonic() - self._written < _PAUSE:
            return
        self._kind, self._written = kind, time.monotonic()
        try:
            write_atomic(self._path, canonical_json(asdict(news)))
        except StorageError:
            return


def read(path: Path) -> Contact:
    """Return what was written last; nothing of a file that is missing or damaged."""
    try:
        return Contact(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return Contact()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
