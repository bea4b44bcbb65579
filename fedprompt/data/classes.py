"""Settle the ordered list of classes: the data's own, or the configured one.

Names are compared and shown with spaces for underscores, as CoOp shows them. Every site of a
deployment has the configured list, and may hold images of some of its classes only.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError

MAX_LISTED = 8  # names shown in a message


def settle(
    found: Sequence[str], configured: str, *, numbered: bool
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the class names, and for each class found its place among them.

    Parameters
    ----------
    found
        The classes of the data, in its order.
    configured
        ``data.class_names``: names with commas between, a ``.txt`` or ``.json`` file, or nothing.
    numbered
        Whether the data numbers its classes, so that a list of equal length renames them.

    Returns
    -------
    The names; int64 [classes found], indices into the names.

    Raises
    ------
    DataError
        A class of the data is not in the list, or a name is empty, doubled or the only one.
    """
    wanted = _read(configured) if configured.strip() else {name: spoken(name) for name in found}
    keys = [spoken(key) for key in wanted]
    names = tuple(wanted.values())
    check_names(keys)
    check_names(names)
    place = {key: index for index, key in enumerate(keys)}
    strangers = [name for name in found if spoken(name) not in place]
    if not strangers:
        return names, np.array([place[spoken(name)] for name in found], dtype=np.int64)
    if numbered and len(names) == len(found):
        return names, np.arange(len(found), dtype=np.int64)
    raise DataError(
        f"the data has the classes {listed(strangers)}, which data.class_names does not list "
        f"({listed(names)}); add them there or remove their images"
    )


def configured_names(configured: str) -> tuple[str, ...]:
    """Return the names that ``data.class_names`` gives, without looking at any image.

    Raises
    ------
    DataError
        As `settle`.
    """
    names = tuple(_read(configured).values())
    check_names(names)
    return names


def listed_labels(configured: str) -> frozenset[str]:
    """Return the labels that ``data.class_names`` has names for, as they are spoken; or nothing.

    Raises
    ------
    DataError
        As `settle`.
    """
    return frozenset(map(spoken, _read(configured))) if configured.strip() else frozenset()


def spoken(name: str) -> str:
    """Return a class name as it stands in a prompt."""
    return " ".join(name.replace("_", " ").split())


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first few of many."""
    rest = len(names) - MAX_LISTED
    text = ", ".join(repr(name) for name in names[:MAX_LISTED])
    return f"{text} and {rest} more" if rest > 0 else text


def _read(configured: str) -> dict[str, str]:
    """Return a name for each label, in order."""
    if configured.strip().endswith((".txt", ".json")):
        names = _read_file(Path(configured.strip()))
    else:
        names = configured.split(",")
    if isinstance(names, dict):
        return {key: value.strip() for key, value in names.items()}
    check_names([spoken(name) for name in names])
    return {name.strip(): spoken(name) for name in names}


def _read_file(path: Path) -> list[str] | dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return [line for line in text.splitlines() if line.strip()]
        names = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"data.class_names: {path} could not be read: {error}") from error
    values = names.values() if isinstance(names, dict) else names
    if not isinstance(names, dict | list) or not all(isinstance(name, str) for name in values):
        raise DataError(
            f"data.class_names: {path} holds no class names; expected a JSON list of names or an "
            'object {"label in the data": "name in the prompt"}'
        )
    return names


def check_names(names: Sequence[str]) -> None:
    """Check that names can be a list of classes.

    Raises
    ------
    DataError
        A name is empty, doubled, unprintable or the only one.
    """
    doubled = sorted(name for name, times in Counter(names).items() if times > 1)
    if doubled:
        raise DataError(f"class names occur twice: {listed(doubled)}; each must be one of a kind")
    if not all(names):
        raise DataError(f"a class name is empty among {listed(names)}")
    odd = [name for name in names if not name.isprintable()]
    if odd:
        raise DataError(f"class names have unprintable characters: {listed(odd)}")
    if len(names) < 2:
        raise DataError(
            f"found {len(names)} class ({listed(names)}); expected at least two to tell apart"
        )
