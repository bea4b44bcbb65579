"""Write down every release before it is drawn, so that no crash and no resumption forgets one.

The ledger is a file of JSON lines in the run's folder. Each line carries a hash over itself and its
predecessor's hash; the file is replaced whole and synced, so it is never torn. It stays when a run
is overwritten: what was released about the sites stays released.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fedprompt.errors import PrivacyError, StorageError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.storage import write_atomic


@dataclass(frozen=True)
class Release:
    """Hold one noised average: of which run and round, over how many asked sites."""

    run: str
    round: int
    sites: int
    clip_norm: float
    noise_multiplier: float


def read(path: Path) -> list[Release]:
    """Return every release so far; a ledger that does not exist has none.

    Raises
    ------
    PrivacyError
        The ledger is empty, or a line was changed, cut, dropped from the middle or exchanged.
    """
    if not path.exists():
        return []
    releases, seal = list[Release](), ""
    try:
        for line in path.read_bytes().decode().splitlines():
            entry = json.loads(line)
            found, seal = entry.pop("sha256"), _seal(entry, seal)
            if found != seal:
                raise ValueError(f"the hash of line {len(releases) + 1} does not match")
            releases.append(Release(**entry))
        if not releases:
            raise ValueError("it is empty")
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrivacyError(
            f"{path} is damaged: {error}; what was released about the sites is not known, so "
            "nothing more is. Bring the file back from a copy, or start in another server.output "
            "and count both folders."
        ) from None
    return releases


def append(path: Path, release: Release, check: Callable[[Sequence[Release]], None]) -> None:
    """Add a release and make it last, if ``check`` raises nothing against all releases with it.

    Raises
    ------
    PrivacyError
        The ledger is damaged, or ``check`` refuses.
    StorageError
        The disk is full or read-only; the ledger is as it was.
    """
    with _alone(path.parent):
        releases = [*read(path), release]
        check(releases)
        write_atomic(path, b"".join(_lines(releases)))


def _lines(releases: Sequence[Release]) -> Iterator[bytes]:
    seal = ""
    for release in releases:
        entry = asdict(release)
        seal = _seal(entry, seal)
        yield canonical_json(entry | {"sha256": seal}) + b"\n"


def _seal(entry: object, previous: str) -> str:
    return sha256_bytes(previous.encode() + canonical_json(entry))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second server in the same folder from spending at the same moment."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"{folder} could not be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
