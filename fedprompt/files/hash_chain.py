"""Chain the lines of a log by their hashes, so that no line can be changed or taken out unseen.

A line is one JSON object. Its field ``before`` is the SHA-256 of the line before it (of all its
bytes but the newline; 64 zeros in the first line), and ``sha256`` is the SHA-256 of the object
without that field, as canonical JSON. The end of a chain can still be cut off, and whoever may
write the file can forge the whole of it: note the last hash elsewhere if that matters.

Lines of earlier versions have one field of the two. With ``before`` alone (egress logs) a change
shows at the next line only. ``sha256`` alone (privacy ledgers) covers the ``sha256`` of the line
before, as hexadecimal text, followed by the object.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedprompt.identity import canonical_json, sha256_bytes

FIRST = "0" * 64  # ``before`` of the first line
_BEFORE, _OWN = "before", "sha256"


@dataclass(frozen=True)
class Line:
    """One line of a chained log.

    Attributes
    ----------
    raw
        Its bytes, without the newline.
    entry
        The object, hashes included; None if the line is torn or not one of a chain.
    fault
        What is wrong with its place in the chain; empty if nothing is.
    """

    raw: bytes
    entry: Mapping[str, Any] | None
    fault: str = ""

    @property
    def hash(self) -> str:
        """Return the SHA-256 that the next line must hold."""
        return sha256_bytes(self.raw)

    @property
    def content(self) -> dict[str, Any]:
        """Return the object without its hashes."""
        return {k: v for k, v in (self.entry or {}).items() if k not in (_BEFORE, _OWN)}


def chained(entry: Mapping[str, Any], before: str) -> bytes:
    """Return the line that continues a chain, newline included.

    Parameters
    ----------
    entry
        JSON values.
    before
        Hash of the line before it, or `FIRST`.

    Raises
    ------
    ValueError
        JSON cannot hold a value, such as NaN.
    """
    content = {**entry, _BEFORE: before}
    return canonical_json({**content, _OWN: sha256_bytes(canonical_json(content))}) + b"\n"


def raw_lines(data: bytes) -> list[bytes]:
    """Return the lines of a file, without their newlines."""
    return data.removesuffix(b"\n").split(b"\n") if data else []


def check(raw: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines of a log, oldest first, each with what is wrong with it."""
    before, seal = FIRST, ""
    for data in raw:
        entry = parse(data)
        line = Line(data, entry, _fault(entry, before, seal) if entry else "")
        before = line.hash
        seal = str(entry.get(_OWN, "")) if entry else seal
        yield line


def parse(raw: bytes) -> Mapping[str, Any] | None:
    """Return the object of a line; None if it is torn, or holds no hash."""
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.keys() & {_BEFORE, _OWN} else None


def _fault(entry: Mapping[str, Any], before: str, seal: str) -> str:
    content = canonical_json({key: value for key, value in entry.items() if key != _OWN})
    if _BEFORE not in entry:
        intact = entry[_OWN] == sha256_bytes(seal.encode() + content)
        return "" if intact else "it, or a line before it, was changed, added or taken out"
    if entry[_BEFORE] != before:
        return "a line before it was changed, added or taken out"
    if _OWN in entry and entry[_OWN] != sha256_bytes(content):
        return "it was changed"
    return ""
