"""Settle the ordered list of classes: the data's own, or the configured one.

Names are compared and shown in one Unicode form (NFC) and with spaces for underscores, as CoOp
shows them. Names that a tokenizer of CLIP makes equal (`as_clip_reads`) are refused, for their
classes could never be told apart. Every site of a deployment has the configured list, and may hold
images of some of its classes only.
"""

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError

_NO_WORD = re.compile(  # wnids, numbers, and what programs write for a gap or a yes
    r"n\d{8}|[\W\d_]+|[+-]?[\d.]+(?i:e)[+-]?\d+|(?i:class|label|id|c)[ _-]?\d+"
    r"|(?i:nan|null|n/a|undefined|true|false)"
)
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
    check_told_apart(names)
    place = {key: index for index, key in enumerate(keys)}
    strangers = [name for name in found if spoken(name) not in place]
    if not strangers:
        return names, np.array([place[spoken(name)] for name in found], dtype=np.int64)
    if numbered and len(names) == len(found):
        return names, np.arange(len(found), dtype=np.int64)
    raise DataError(
        f"the data has the classes {listed(strangers)}, which data.class_names does not list "
        f"({listed(names)}){in_ascii((*strangers, *names))}; add them there or remove their "
        "images, or, if they are other words for those classes, make data.class_names a .json "
        "table "
        f"{{{json.dumps(strangers[0])}: {json.dumps(names[0], ensure_ascii=False)}, ...}}"
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
    check_told_apart(names)
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
    return " ".join(one_form(name).replace("_", " ").split())


def label_text(where: str, value: object) -> str:
    """Return a label as text: a name, or a whole number.

    Raises
    ------
    DataError
        ``where`` has no label, or one of another kind: a list, true, 1.5.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where} has no label")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(
            f"{where} has no label of a kind that is known: found {value!r:.80}; expected a name "
            "or a whole number"
        )
    return one_form(str(value).strip())


def one_form(name: str) -> str:
    """Return a name in the Unicode form NFC; macOS writes folder names in NFD."""
    return unicodedata.normalize("NFC", name)


def as_clip_reads(name: str) -> str:
    """Return what the tokenizers of CLIP make of a name before they cut it.

    Source: open_clip 3.3, `tokenizer.py`, `_clean_lower`: ftfy, HTML entities, white space, case;
    without ftfy, which comes with the extra ``train``, the Unicode form alone.
    """
    try:
        import ftfy

        fixed = ftfy.fix_text(name)
    except ImportError:
        fixed = one_form(name)
    return spoken(html.unescape(html.unescape(fixed))).lower()


def note_names(names: Sequence[str]) -> list[str]:
    """Return a note when names are no words, which is all that CLIP knows them by."""
    odd = [name for name in names if _NO_WORD.fullmatch(name)]
    if not odd:
        return []
    return [
        f"class names that are no words: {listed(odd)}; CLIP reads names as text, so give words by "
        f'data.class_names, a .json table {{{json.dumps(odd[0])}: "a word", ...}}'
    ]


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
        return {key: one_form(value.strip()) for key, value in names.items()}
    check_names([spoken(name) for name in names])
    return {name.strip(): spoken(name) for name in names}


def _read_file(path: Path) -> list[str] | dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return [line for line in text.splitlines() if line.strip()]
        names = json.loads(text, object_pairs_hook=keys_once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"data.class_names: {path} could not be read: {error}") from error
    values = names.values() if isinstance(names, dict) else names
    if not isinstance(names, dict | list) or not all(isinstance(name, str) for name in values):
        raise DataError(
            f"data.class_names: {path} holds no class names; expected a JSON list of names or an "
            'object {"label in the data": "name in the prompt"}'
        )
    return names


def keys_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object; ValueError when a key is there twice, for which `json` takes the last.

    An ``object_pairs_hook``.
    """
    twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    if twice:
        raise ValueError(f"two values for {listed(twice)}")
    return dict(pairs)


def in_ascii(names: Sequence[str]) -> str:
    """Return the names that are not ASCII once more, so that a message shows how they differ."""
    odd = [name for name in dict.fromkeys(names) if not name.isascii()]
    return f" (in ASCII: {', '.join(map(ascii, odd[:MAX_LISTED]))})" if odd else ""


def check_told_apart(names: Sequence[str]) -> None:
    """Check that no two names are the same to CLIP, such as 'Cat' and 'cat'.

    Raises
    ------
    DataError
        Names both of a pair, in ASCII if they look alike.
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(as_clip_reads(name), name)
        if other != name:
            raise same_words(other, name)


def same_words(one: str, other: str) -> DataError:
    """Return the error of two class names that a tokenizer makes equal."""
    return DataError(
        f"the class names {one!r} and {other!r}{in_ascii((one, other))} are the same words to "
        "CLIP, which could never tell the classes apart; put them together, or rename one"
    )


def check_names(names: Sequence[str]) -> None:
    """Check that names can be a list of classes.

    Raises
    ------
    DataError
        A name is empty, doubled, unprintable or the only one.
    """
    doubled = sorted(name for name, times in Counter(names).items() if times > 1)
    if doubled:
        raise DataError(
            f"class names occur twice: {listed(doubled)}; each must be one of a kind (case, "
            "underscores, blanks and Unicode forms make no difference)"
        )
    if not all(names):
        raise DataError(f"a class name is empty among {listed(names)}")
    odd = [name for name in names if not name.isprintable()]
    if odd:
        raise DataError(f"class names have unprintable characters: {listed(odd)}")
    if len(names) < 2:
        raise DataError(
            f"found {len(names)} class ({listed(names)}); expected at least two to tell apart"
        )
