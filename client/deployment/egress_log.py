"""Write down everything that leaves a site before it leaves: ``egress.jsonl``.

One JSON object a line, appended and synced to disk. Each line holds the SHA-256 of the line before
it, so a line that is changed or taken out shows. The last lines can still be cut off, and whoever
may write the file can forge the whole of it: note the last hash elsewhere if that matters. A line
torn by a power cut stays where it is: what it would have told of never left.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from fedprompt.errors import StorageError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.storage import sync_folder

FIRST = "0" * 64  # what the very first line has for a line before it
MAX_FILE = 5_000_000  # bytes after which a new file is begun; the old one is kept
_PATIENCE = 10.0  # seconds to wait for another process's line


@dataclass(frozen=True)
class Line:
    """Hold one line: where it stands, its bytes, and what it says (None if it is torn)."""

    file: Path
    number: int
    raw: bytes
    entry: Mapping[str, Any] | None

    @property
    def hash(self) -> str:
        """Return the SHA-256 that the next line must hold."""
        return sha256_bytes(self.raw)


class EgressLog:
    """Append to the log of a site.

    Parameters
    ----------
    path
        ``egress.jsonl``; older files lie beside it as ``egress-000001.jsonl``, ...
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sent_today(self) -> int:
        """Return the bytes that have left since midnight, UTC.

        Raises
        ------
        StorageError
            The log cannot be read.
        """
        return self._end()[1].get(_today(), 0)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on the disk.

        Parameters
        ----------
        entry
            JSON values; ``bytes`` is what is about to leave. Time, day, the day's bytes and the
            hash of the line before are added.

        Raises
        ------
        StorageError
            It could not be written: nothing may leave.
        """
        with self._alone():
            try:
                self._rotate()
                before, spent = self._end()
                day = _today()
                told = {
                    **entry,
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "day": day,
                    "day_bytes": spent.get(day, 0) + int(entry["bytes"]),
                    "before": before,
                }
                self._write(canonical_json(told) + b"\n")
            except (OSError, ValueError) as error:
                raise StorageError(
                    f"{self.path} could not be written: {error}; nothing leaves this site until it "
                    "can be. Free some space, or give the folder back to the client's user"
                ) from error

    def _end(self) -> tuple[str, dict[str, int]]:
        """Return the hash of the last line, and the bytes of the last day that is told of."""
        before = FIRST
        for file in reversed(files(self.path)):
            for raw in reversed(_raw_lines(file)):
                before = sha256_bytes(raw) if before == FIRST else before
                if entry := _entry(raw):  # not torn: it knows the bytes of its day
                    return before, {str(entry.get("day")): int(entry.get("day_bytes", 0))}
        return before, {}

    def _rotate(self) -> None:
        if self.path.exists() and self.path.stat().st_size >= MAX_FILE:
            newest = (int(file.stem.rpartition("-")[2]) for file in reversed(_older(self.path)))
            number = next(newest, 0) + 1  # not their count: somebody may have put some away
            self.path.rename(self.path.with_name(f"{self.path.stem}-{number:06}.jsonl"))

    def _write(self, data: bytes) -> None:
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write_all(descriptor, b"\n" + data if torn else data)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # what did not leave is not told of
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.path.parent)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = filelock.FileLock(self.path.with_suffix(".lock"), mode=0o600)
        try:
            with lock.acquire(timeout=_PATIENCE):
                yield
        except (OSError, filelock.Timeout) as error:
            raise StorageError(f"{lock.lock_file} cannot be held: {error}") from error


def files(path: Path) -> list[Path]:
    """Return the files of a log, oldest first."""
    older = _older(path)
    return [*older, path] if path.exists() else older


def _older(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 6}.jsonl"))


def lines(file: Path) -> Iterator[Line]:
    """Yield the lines of one file.

    Raises
    ------
    StorageError
        It cannot be read.
    """
    for number, raw in enumerate(_raw_lines(file), 1):
        yield Line(file, number, raw, _entry(raw))


def _raw_lines(file: Path) -> list[bytes]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file} could not be read: {error.strerror}") from None
    return data.removesuffix(b"\n").split(b"\n") if data else []


def verify(path: Path) -> tuple[list[Line], list[str]]:
    """Return every line of a log, and what is wrong with its chain, one line each.

    Raises
    ------
    StorageError
        It cannot be read.
    """
    found, faults, before = list[Line](), list[str](), FIRST
    for line in (line for file in files(path) for line in lines(file)):
        where = f"{line.file.name}, line {line.number}"
        if line.entry is not None and line.entry.get("before") != before:
            faults.append(f"{where}: a line before it was changed, added or taken out")
        found.append(line)
        before = line.hash
    return found, faults


def _entry(raw: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and "before" in entry else None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
