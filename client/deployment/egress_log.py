"""Record everything that leaves a site before it leaves: ``egress.jsonl``.

A hash-chained log (`fedprompt.files.hash_chain`), appended and synced to disk. A line torn by a
power cut stays where it is: the answer that it describes never left.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedprompt.errors import StorageError
from fedprompt.files import hash_chain
from fedprompt.files.file_lock import lock
from fedprompt.files.hash_chain import FIRST, Line
from fedprompt.identity import sha256_bytes
from fedprompt.storage import sync_folder

MAX_FILE = 5_000_000  # bytes after which a new file is begun; the old one is kept
_LOCK_TIMEOUT = 10.0  # seconds to wait for another process's line


@dataclass(frozen=True)
class EgressLog:
    """The log of a site.

    Attributes
    ----------
    path
        ``egress.jsonl``; older files lie beside it as ``egress-000001.jsonl``, ...
    """

    path: Path

    def files(self) -> list[Path]:
        """Return the files of the log, oldest first."""
        older = sorted(self.path.parent.glob(f"{self.path.stem}-{'[0-9]' * 6}.jsonl"))
        return [*older, self.path] if self.path.exists() else older

    def verify(self) -> tuple[list[Line], list[str]]:
        """Return every line, and a message for each fault of the chain.

        Raises
        ------
        StorageError
            The log cannot be read.
        """
        places, raw = list[str](), list[bytes]()
        for file in self.files():
            lines = _raw_lines(file)
            places += [f"{file.name}, line {number + 1}" for number in range(len(lines))]
            raw += lines
        checked = list(hash_chain.check(raw))
        faults = [
            f"{place}: {line.fault}"
            for place, line in zip(places, checked, strict=True)
            if line.fault
        ]
        return checked, faults

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
            JSON values; ``bytes`` is the size of the answer that is about to leave. Time, day, the
            day's bytes and the hashes are added.

        Raises
        ------
        StorageError
            It could not be written: nothing may leave.
        """
        try:
            with lock(self.path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT):
                self._rotate()
                before, spent = self._end()
                day = _today()
                stamped = {
                    **entry,
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "day": day,
                    "day_bytes": spent.get(day, 0) + int(entry["bytes"]),
                }
                self._write(hash_chain.chained(stamped, before))
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self.path} could not be written: {error}; nothing leaves this site until it "
                "can be. Free some space, or give the folder back to the client's user"
            ) from error

    def _end(self) -> tuple[str, dict[str, int]]:
        """Return the hash of the last line, and the bytes of the last recorded day."""
        before = FIRST
        for file in reversed(self.files()):
            for raw in reversed(_raw_lines(file)):
                before = sha256_bytes(raw) if before == FIRST else before
                if entry := hash_chain.parse(raw):  # a torn line has no count of bytes
                    return before, {str(entry.get("day")): int(entry.get("day_bytes", 0))}
        return before, {}

    def _rotate(self) -> None:
        if self.path.exists() and self.path.stat().st_size >= MAX_FILE:
            *older, _ = self.files()
            # not their count: some may have been moved away
            number = int(older[-1].stem.rpartition("-")[2]) + 1 if older else 1
            self.path.rename(self.path.with_name(f"{self.path.stem}-{number:06}.jsonl"))

    def _write(self, data: bytes) -> None:
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write_all(descriptor, b"\n" + data if is_torn else data)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # the answer does not leave
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.path.parent)


def _raw_lines(file: Path) -> list[bytes]:
    try:
        return hash_chain.raw_lines(file.read_bytes())
    except OSError as error:
        raise StorageError(f"{file} could not be read: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
