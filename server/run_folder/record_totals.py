"""Sum up a run's record while it grows, reading only what was added since."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import parse


class Tally:
    """Hold the newest value of every field of a record, and the totals of some.

    Attributes
    ----------
    last
        Each field as the newest round that has it says; None before there is a round.
    up, down
        Bytes of all messages from and to the sites.
    refused
        Replies that were dropped, by reason code.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()

    def _restart(self) -> None:
        self.last: RoundRecord | None = None
        self.up = self.down = 0
        self.refused: Counter[str] = Counter()
        self._offset, self._tail = 0, b""  # how far was read, and the last line that was

    def update(self) -> None:
        """Read the lines that were added; start afresh if the record was replaced or cut."""
        for record in self._added():
            self.last = self.last | record if self.last else record
            self.up += record.total_bytes_up
            self.down += record.total_bytes_down
            for verdict in (verdict for _, verdicts in record.phases() for verdict in verdicts):
                if not verdict.accepted:
                    self.refused.update(verdict.reasons)

    def _added(self) -> Iterator[RoundRecord]:
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
                record = parse(text) if text.endswith(b"\n") else None
                if record is None:
                    return  # torn: its writer is at it, or was killed
                self._offset, self._tail = self._offset + len(text), text
                yield record
