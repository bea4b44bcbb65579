"""Sum up a run's record while it grows, reading only what was added since."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_UP = ("bytes_up", "evaluation_bytes_up", "join_bytes_up")
_DOWN = ("bytes_down", "evaluation_bytes_down", "join_bytes_down")
_VERDICTS = ("verdicts", "evaluation_verdicts", "refused")


class Tally:
    """Hold the newest value of every key of a record's lines, and the totals of some.

    Attributes
    ----------
    last
        Each key as the newest line that has it says.
    up, down
        Bytes of all messages from and to the sites.
    refused
        Replies that were dropped, by reason code.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()

    def update(self) -> None:
        """Read the lines that were added; start afresh if the record was replaced or cut."""
        for line in self._added():
            self.last |= line
            self.up += sum(line.get(key, 0) for key in _UP)
            self.down += sum(line.get(key, 0) for key in _DOWN)
            for verdict in (verdict for key in _VERDICTS for verdict in line.get(key, ())):
                if not verdict["accepted"]:
                    self.refused.update(verdict["reasons"])

    def _restart(self) -> None:
        self.last: dict[str, Any] = {}
        self.up = self.down = 0
        self.refused: Counter[str] = Counter()
        self._offset, self._tail = 0, b""  # how far was read, and the last line that was

    def _added(self) -> Iterator[Mapping[str, Any]]:
        try:
            file = self._path.open("rb")
        except OSError:  # no round yet, or the run was cleared
            self._restart()
            return
        with file:
            file.seek(self._offset - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                self._restart()
                file.seek(0)
            for text in file:
                line = _parse(text)
                if line is None:
                    return  # torn: its writer is at it, or was killed
                self._offset, self._tail = self._offset + len(text), text
                yield line


def _parse(text: bytes) -> Mapping[str, Any] | None:
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, Mapping) else None
