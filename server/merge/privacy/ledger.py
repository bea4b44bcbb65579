"""Record every release before it is drawn, so that no crash and no resumption forgets one.

The ledger is a hash-chained log (`fedprompt.files.hash_chain`) in the run's folder. The file is
replaced whole and synced, so it is never torn. It stays when a run is overwritten: what was
released about the sites stays released.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedprompt.errors import PrivacyError, StorageError
from fedprompt.files import hash_chain
from fedprompt.files.file_lock import lock
from fedprompt.storage import write_atomic


@dataclass(frozen=True)
class Release:
    """One noised average: its run, its round and the number of sites asked."""

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
    return [release for release, _ in _read(path)]


def append(path: Path, release: Release, check: Callable[[Sequence[Release]], None]) -> None:
    """Add a release for good, if ``check`` raises nothing for all releases including it.

    Raises
    ------
    PrivacyError
        The ledger is damaged, or ``check`` refuses.
    StorageError
        The disk is full or read-only; the ledger is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.parent):  # a second server in this folder must not spend the same budget
            known = _read(path)
            check([*(release for release, _ in known), release])
            before = known[-1][1].hash if known else hash_chain.FIRST
            lines = [line.raw + b"\n" for _, line in known]
            lines.append(hash_chain.chained(asdict(release), before))
            write_atomic(path, b"".join(lines))
    except OSError as error:
        raise StorageError(f"{path.parent} could not be locked: {error}") from error


def _read(path: Path) -> list[tuple[Release, hash_chain.Line]]:
    """Return every release, with its line."""
    if not path.exists():
        return []
    releases = list[tuple[Release, hash_chain.Line]]()
    try:
        for line in hash_chain.check(hash_chain.raw_lines(path.read_bytes())):
            if line.entry is None or line.fault:
                raise ValueError(
                    f"line {len(releases) + 1}: {line.fault or 'it is no line of a ledger'}"
                )
            releases.append((Release(**line.content), line))
        if not releases:
            raise ValueError("it is empty")
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise PrivacyError(
            f"{path} is damaged: {error}; the releases about the sites are not known, so nothing "
            "more is released. Restore it from a backup, or start in another server.output and "
            "count both folders."
        ) from None
    return releases
