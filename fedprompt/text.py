"""Make text that others wrote safe to show: one escaping for terminals, pages, files and logs.

A control character moves a terminal's cursor or sets its title, a change of direction makes a line
read backwards, and a line break forges a line. Text is escaped where it enters, once: a site's in
its verdict (`server.gate.verdict`), a log record's in its formatter, and whatever a command prints.
"""

import json
import unicodedata

MOST = 500  # characters of one text from outside


def printable(text: str) -> str:
    """Return a text in which what is neither printable nor a blank is written as Python does it."""
    return "".join(char if _is_harmless(char) else repr(char)[1:-1] for char in text)


def one_line(text: str, most: int = MOST) -> str:
    """Return a text as one printable line of at most ``most`` characters.

    Runs of white space become one blank. Escaping an escaped line changes nothing.
    """
    # no character is longer escaped than ten others
    line = printable(" ".join(text[: 10 * most].split()))
    cut = len(text) > 10 * most or len(line) > most
    return f"{line[: most - 4].rstrip()} ...".strip() if cut else line


def json_text(value: object) -> str:
    """Return a value as JSON on one printable line; what JSON cannot hold is written as text."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(char if _is_harmless(char) else json.dumps(char)[1:-1] for char in text)


def _is_harmless(char: str) -> bool:
    """Tell whether a character is printable, or a blank such as the one that breaks no line."""
    return char.isprintable() or unicodedata.category(char) == "Zs"
