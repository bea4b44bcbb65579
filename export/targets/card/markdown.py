"""Write Markdown in which text that comes from strangers stays text."""

from collections.abc import Iterable, Sequence

NOT_RECORDED = "not recorded"
_LONGEST = 200  # characters of a text
_LARGEST = 1e300  # no figure is; a whole number of any length is JSON, but no float
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]#~$:@="} | _ENTITIES)


def text(value: object) -> str:
    """Return any value as the inside of a cell, where it shows as it is: no markup, link or entity.

    What is not printable (line breaks, changes of direction) becomes a space, and what is long is
    cut.
    """
    begin = str(value)[: 4 * _LONGEST]
    line = " ".join("".join(c if c.isprintable() else " " for c in begin).split())
    cut = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return cut.translate(_ESCAPES).replace("www.", "www\\.") or "(blank)"


def number(value: object, form: str) -> str:
    """Return a finite number by a format such as ``{:.2%}``; what is none is not recorded."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return NOT_RECORDED
    return form.format(value)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
