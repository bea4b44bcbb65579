"""Record when the server last answered and what went wrong since: ``contact.json``."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedprompt.errors import StorageError
from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic

REFUSED = 77  # exit code of the SuperNode when the server does not accept this site's key
_INTERVAL = 20.0  # seconds between two writes of the same result


@dataclass(frozen=True)
class ConnectionStatus:
    """The last results of requests: UTC times, ISO 8601, empty until it happened."""

    heard: str = ""  # the last answer
    refused: str = ""  # the last time the server did not accept this site's key
    trouble: str = ""  # why the last request failed; empty after an answer


class StatusFile:
    """Record the results of requests, at most every few seconds.

    Parameters
    ----------
    path
        The file; a full disk stops no request.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = read(path)
        self._kind, self._written = "", 0.0

    def record_answer(self) -> None:
        """Record an answer."""
        self._record("heard", ConnectionStatus(_now(), self._status.refused))

    def record_refusal(self) -> None:
        """Record that the server did not accept this site's key."""
        reason = "the server refuses this key"
        self._record("refused", ConnectionStatus(self._status.heard, _now(), reason))

    def record_failure(self, reason: str) -> None:
        """Record that a request failed."""
        status = ConnectionStatus(self._status.heard, self._status.refused, reason)
        self._record(reason, status)

    def _record(self, kind: str, status: ConnectionStatus) -> None:
        self._status = status
        if kind == self._kind and time.monotonic() - self._written < _INTERVAL:
            return
        self._kind, self._written = kind, time.monotonic()
        try:
            write_atomic(self._path, canonical_json(asdict(status)))
        except StorageError:
            return


def read(path: Path) -> ConnectionStatus:
    """Return what was written last; nothing of a file that is missing or damaged."""
    try:
        return ConnectionStatus(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ConnectionStatus()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
