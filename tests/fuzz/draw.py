"""Read choices, numbers and text from a fuzzer's bytes, so that plain mutation bends structures.

Where the bytes end, every further choice is 0: short inputs are honest ones.
"""

import struct
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draw:
    """Consume some bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def byte(self) -> int:
        """Return the next byte, 0 at the end."""
        return self.take(1)[0] if self._place < len(self._data) else 0

    def take(self, count: int) -> bytes:
        """Return at most ``count`` bytes."""
        taken = self._data[self._place : self._place + count]
        self._place += len(taken)
        return taken

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(len(self._data))

    def choice(self, items: Sequence[Item]) -> Item:
        """Return one of some items, the first at the end."""
        return items[self.byte() % len(items)]

    def integer(self) -> int:
        """Return a signed number of 64 bits."""
        return int.from_bytes(self.take(8).ljust(8, b"\0"), "little", signed=True)

    def number(self) -> float:
        """Return any double, NaN and infinity too."""
        found: float = struct.unpack("<d", self.take(8).ljust(8, b"\0"))[0]
        return found

    def text(self) -> str:
        """Return up to 255 bytes of UTF-8; protobuf lets no broken ones through."""
        return self.take(self.byte()).decode("utf-8", "replace")
