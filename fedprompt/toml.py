"""Read and write TOML: the standard library's parser, kept from input that is made to exhaust it.

``tomllib`` takes some 2 kB a nested bracket, up to Python's own depth, and memory that grows with
the square of a dotted key: 8 kB of ``a.a.a...`` cost 65 MB. No file of settings is like that.
"""

import json
import re
import tomllib
from typing import Any

_DEEPEST = 32  # open brackets at a time
_PARTS = 32  # of a dotted key
_BRACKETS = re.compile(r"[\[\]{}]")
_BETWEEN_KEYS = frozenset("\n=,[]{}#")


def loads(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises
    ------
    ValueError
        It is no TOML, or nests deeper or dots longer than any settings do.
    """
    text = text.removeprefix("\ufeff")  # the byte order mark that Windows' editors write
    if _depth(text) > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} brackets are open at a time")
    if _longest_key(text) > _PARTS:
        raise ValueError(f"a dotted key has more than {_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def dumps(value: str | int | float | bool) -> str:
    """Return a scalar as TOML writes it: as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _depth(text: str) -> int:
    """Return the most brackets that are open at a time, those in strings and comments included."""
    now = most = 0
    for found in _BRACKETS.finditer(text):
        now = now + 1 if found[0] in "[{" else max(0, now - 1)
        most = max(most, now)
    return most


def _longest_key(text: str) -> int:
    """Return the most parts with nothing but dots between them."""
    run = most = 1
    for part in text.split("."):
        run = 1 if _BETWEEN_KEYS & set(part) else run + 1
        most = max(most, run)
    return most
