"""Read a manifest: a list of images with their labels.

CSV with the header ``path,label``, and ``split`` and ``domain`` if wanted; JSON lines with the same
keys (a domain is the camera, hand or hospital an image comes from; every line has one, or none);
or CoOp's ``split_zhou_*.json``, ``{"train": [[path, number, class name], ...], "val":
..., "test": ...}``. A path is relative to the manifest's folder, or to ``data.root``; it may not
leave that folder. An absolute path is taken when it lies inside, so ``data.root = "/"`` allows any
(F33). Names of columns are read in any letter case, and ``file_name`` is ``path``, as in the
``metadata.jsonl`` of a Hugging Face image folder.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from fedprompt.data.classes import keys_once, label_text, listed, one_form
from fedprompt.data.files import Files, images_below, inside
from fedprompt.data.splits import Role, Split, Splits, role_of
from fedprompt.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".json")
METADATA = ("metadata.csv", "metadata.jsonl")  # in a Hugging Face image folder
_UNREAD_METADATA = "metadata.parquet"
_PATHS = ("path", "file_name")
_METADATA_LABELS = ("label", "labels", "class", "category")
_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?")  # a column with a gap turns pandas' 0 into 0.0


class _Row(NamedTuple):
    where: str  # "line 3": for messages
    path: str
    label: str
    split: str
    domain: str = ""


@dataclass(frozen=True)
class _Table:
    """Hold the lines of a file by the names of their columns, in small letters.

    Attributes
    ----------
    header
        Whether the columns are named once, above all lines.
    lines
        What a line is called in messages, and its fields.
    """

    columns: tuple[str, ...]
    header: bool
    lines: list[tuple[str, dict[str, object]]]

    def first(self, names: tuple[str, ...]) -> str | None:
        """Return the first of some names that is a column."""
        return next((name for name in names if name in self.columns), None)


def read_manifest(manifest: Path, root: Path | None = None, label_column: str = "") -> Splits:
    """Return the images that a manifest lists; classes are its sorted labels, or as numbered.

    Parameters
    ----------
    label_column
        The column of the labels; "" = ``label``.

    Raises
    ------
    DataError
        The manifest cannot be read, a line is broken, or a path leaves its folder.
    """
    base = (root or manifest.parent).resolve()
    text = _text(manifest)
    try:
        if manifest.suffix.lower() == ".json":
            rows, classes = _read_coop(text)
            return _splits(rows, classes, True, base, [])
        rows, notes = _rows(_table(text, manifest), (label_column or "label",))
        _check_split_is_said(rows)
        return _splits(rows, _classes(rows), False, base, notes)
    except DataError as error:
        raise DataError(f"{manifest}: {error}") from error


def read_metadata(root: Path, label_column: str = "") -> Splits | str:
    """Return the images that the metadata of a Hugging Face image folder list.

    ``metadata.csv`` or ``metadata.jsonl`` lies in the folder or in each of its splits; its column
    ``file_name`` starts there. In the folder itself, a path whose first part means a split is of
    that split, unless there is a column ``split``.

    Returns
    -------
    The splits; or why the metadata say nothing of classes; or "", when there are none.

    Raises
    ------
    DataError
        As `read_manifest`.
    """
    columns = (label_column,) if label_column else _METADATA_LABELS
    rows: list[_Row] = []
    notes: list[str] = []
    files = _metadata_files(root)
    for prefix, path in files:
        try:
            table = _table(_text(path), path)
            if not table.first(tuple(map(str.lower, columns))):
                return (
                    f"{path} has the columns {listed(table.columns)}, none of them with labels: "
                    "classes are folders; set data.label_column if one of those holds them"
                )
            found, more = _rows(table, columns)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        placed = [_placed(row, prefix) for row in found]
        _check_listed_once(rows, placed, path)
        rows += placed
        notes += more
    if not files:
        return _unread_metadata(root)
    named = ", ".join(str(path) for _, path in files)
    notes.insert(0, f"labels are read from {named}, not from names of folders")
    _check_split_is_said(rows)
    beside = images_below(root) - len({row.path for row in rows})
    if beside > 0:
        notes.append(f"{beside} images below {root} are not listed there and not used")
    try:
        return _splits(rows, _classes(rows), False, root.resolve(), notes)
    except DataError as error:
        raise DataError(f"{named}: {error}") from error


def _metadata_files(root: Path, names: Collection[str] = METADATA) -> list[tuple[str, Path]]:
    """Return the metadata files of a folder and of its splits, each with its folder's name.

    Their names are known in any letter case.
    """
    try:
        places = ["", *sorted(p.name for p in root.iterdir() if p.is_dir() and role_of(p.name))]
        found = [(place, path) for place in places for path in sorted((root / place).iterdir())]
    except OSError as error:
        raise DataError(f"{root} could not be read: {error.strerror}; set data.source") from error
    return [(place, path) for place, path in found if path.name.lower() in names and path.is_file()]


def _unread_metadata(root: Path) -> str:
    """Return why metadata of a kind that is not read here say nothing; or "", without any."""
    unread = [str(path) for _, path in _metadata_files(root, (_UNREAD_METADATA,))]
    if not unread:
        return ""
    return (
        f"{listed(unread)} is not read here: classes are folders; write it as metadata.csv or "
        "metadata.jsonl if its labels are meant"
    )


def _check_listed_once(before: Collection[_Row], rows: Collection[_Row], file: Path) -> None:
    """Refuse images that two metadata files list: which of the labels counts is not known."""
    known = {row.path for row in before}
    twice = [row.path for row in rows if row.path in known]
    if twice:
        raise DataError(
            f"{file} lists {listed(twice)}, which other metadata of this folder list too; keep one"
        )


def _placed(row: _Row, prefix: str) -> _Row:
    """Return a row with its path from the root, and the split that its folder means."""
    path = f"{prefix}/{row.path}" if prefix else row.path
    return row._replace(path=path, split=row.split or _split_above(path))


def _split_above(path: str) -> str:
    """Return the split that the first folder of a path means, if any."""
    folder, slash, _ = path.partition("/")
    return (role_of(folder) or "") if slash else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def _table(text: str, path: Path) -> _Table:
    return _csv_table(text) if path.suffix.lower() == ".csv" else _jsonl_table(text)


def _csv_table(text: str) -> _Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    lines: list[tuple[str, dict[str, object]]] = []
    try:
        columns = _columns(next(reader, []), "the header")
        for fields in filter(None, reader):
            where = f"line {reader.line_num}"
            if len(fields) > len(columns):
                raise DataError(
                    f"{where} has {len(fields)} fields and the header {len(columns)}; a field with "
                    "a comma needs quotes"
                )
            lines.append((where, dict(zip(columns, fields, strict=False))))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is broken: {error}") from error
    return _Table(columns, True, lines)


def _jsonl_table(text: str) -> _Table:
    lines: list[tuple[str, dict[str, object]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = _json(line, f"line {number}")
        if not isinstance(row, dict):
            raise DataError(f"line {number} is no object; expected {{'path': ..., 'label': ...}}")
        columns = _columns(list(row), f"line {number}")
        lines.append((f"line {number}", dict(zip(columns, row.values(), strict=True))))
    return _Table(tuple(dict.fromkeys(name for _, row in lines for name in row)), False, lines)


def _columns(names: list[str], where: str) -> tuple[str, ...]:
    """Return names of columns in small letters, none of them twice."""
    columns = tuple(name.strip().lower() for name in names)
    twice = [name for name, times in Counter(columns).items() if name and times > 1]
    if twice or set(_PATHS) <= set(columns):
        raise DataError(f"{where} has two columns for {listed(twice or ['path'])}; keep one")
    return columns


def _rows(table: _Table, label_columns: tuple[str, ...]) -> tuple[list[_Row], list[str]]:
    """Return the rows of a table, and notes on how it was understood."""
    path = table.first(_PATHS)
    label = table.first(tuple(map(str.lower, label_columns)))
    if table.header and not (path and label):
        raise DataError(
            f"the header is {list(table.columns)}; expected path,{label_columns[0]}"
            "[,split][,domain]"
        )
    used = (path or _PATHS[0], label or label_columns[0])
    rows = [_row(where, fields, *used) for where, fields in table.lines]
    notes = []
    silent = [row.where for row in rows if not row.split]
    if 0 < len(silent) < len(rows):
        notes.append(f"{len(silent)} lines name no split and are for training: {listed(silent)}")
    unused = [name for name in table.columns if name and name not in (*used, "split", "domain")]
    if unused:
        notes.append(f"columns that are not used: {listed(unused)}")
    whole = [_WHOLE.fullmatch(row.label) for row in rows]
    if all(whole) and any(match[0] != match[1] for match in whole if match):
        notes.append("labels such as '0.0' are read as whole numbers, '0'")
        rows = [r._replace(label=m[1]) for r, m in zip(rows, whole, strict=True) if m]
    return rows, notes


def _row(where: str, fields: dict[str, object], path_column: str, label_column: str) -> _Row:
    path = fields.get(path_column)
    if not isinstance(path, str) or not path:
        raise DataError(f"{where} has no path")
    label = label_text(where, fields.get(label_column))
    domain = "" if fields.get("domain") is None else fields["domain"]
    if not isinstance(domain, str | int) or isinstance(domain, bool):
        raise DataError(f"{where}: the domain is a {type(domain).__name__}; expected a name")
    name = one_form(str(domain).strip())
    if not name.isprintable():
        raise DataError(f"{where}: the domain {name!r} has unprintable characters")
    split = "" if fields.get("split") is None else str(fields["split"])
    return _Row(where, path, label, split.strip().lower(), name)


def _read_coop(text: str) -> tuple[list[_Row], tuple[str, ...]]:
    tree = _json(text, "the file")
    if not isinstance(tree, dict) or not isinstance(tree.get("train"), list):
        raise DataError('expected {"train": [[path, number, class name], ...], ...}')
    rows: list[_Row] = []
    names: dict[int, str] = {}
    for split, items in tree.items():
        for place, item in enumerate(items if isinstance(items, list) else [items]):
            match item:
                case [_, bool(), _]:
                    raise DataError(f"{split}[{place}] has {item[1]} for a class's number")
                case [str() as path, int() as number, str() as written] if path and written.strip():
                    name = one_form(written.strip())
                    if names.setdefault(number, name) != name:
                        raise DataError(f"class {number} is both {names[number]!r} and {name!r}")
                    rows.append(_Row(f"{split}[{place}]", path, name, split))
                case _:
                    raise DataError(f"{split}[{place}] is not [path, number, class name]")
    return rows, tuple(names[number] for number in sorted(names))


def _classes(rows: list[_Row]) -> tuple[str, ...]:
    return tuple(sorted({row.label for row in rows}))


def _splits(
    rows: list[_Row], classes: tuple[str, ...], numbered: bool, base: Path, notes: list[str]
) -> Splits:
    names = _domain_names(rows)
    grouped: dict[str, list[_Row]] = {"train": [], "val": [], "test": []}
    for row in rows:
        split = role_of(row.split) if row.split else "train"
        if split is None:
            raise DataError(f"{row.where}: split {row.split!r}; expected train, val or test")
        grouped[split].append(row)
    placed = {split: [_path(row, base) for row in members] for split, members in grouped.items()}
    _check_one_label([pair for s in grouped for pair in zip(grouped[s], placed[s], strict=True)])
    made = {
        split: _split(members, classes, names, Files(base, placed[split]))
        for split, members in grouped.items()
    }
    test = made["test" if grouped["test"] else "val"]
    if grouped["test"] and grouped["val"]:
        notes.append(f"{len(grouped['val'])} images of val are not used: there is a test split")
    kept = test if len(test.labels) else None
    return Splits(
        classes,
        numbered,
        made["train"],
        kept,
        domain_names=names,
        notes=tuple(dict.fromkeys(notes)),
    )


def _split(
    rows: list[_Row], classes: tuple[str, ...], domain_names: tuple[str, ...], files: Files
) -> Split:
    number_of = {name: number for number, name in enumerate(classes)}
    domain_of = {name: number for number, name in enumerate(domain_names)}
    labels = np.array([number_of[row.label] for row in rows], dtype=np.int64)
    domains = np.array([domain_of[row.domain] for row in rows if domain_names], dtype=np.int64)
    return Split(labels, files, domains)


def _check_one_label(placed: list[tuple[_Row, str]]) -> None:
    """Refuse a file that has two labels: which one counts is not known."""
    first: dict[str, _Row] = {}
    for row, path in placed:
        other = first.setdefault(path, row)
        if other.label != row.label:
            raise DataError(
                f"{path!r} is {other.label!r} in {other.where} and {row.label!r} in {row.where}; "
                "an image has one label"
            )


def _path(row: _Row, base: Path) -> str:
    try:
        path = inside(base, row.path)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    odd = _oddity(row.path)
    if odd and not _is_there(base / path):
        raise DataError(f"{row.where}: {row.path!r} is no file of {base} and {odd}")
    return path


def _oddity(path: str) -> str:
    """Return what is odd about a path, and the cure; or "", for a usual one."""
    if "://" in path:
        return "is an address: download the images, and write paths"
    if PureWindowsPath(path).drive:
        return "is an absolute path of Windows: write it relative to that folder"
    if "\\" in path:
        return "has backslashes: write / instead"
    return "has blanks around it: remove them" if path != path.strip() else ""


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _check_split_is_said(rows: list[_Row]) -> None:
    """Refuse paths below split folders where no line says a split: all would be for training.

    Splits are folders at one depth that are called as different ones; above all images there may
    be a folder ``test`` that means nothing.
    """
    found: dict[int, dict[Role, str]] = {}
    for row in rows:
        if not row.split:
            for depth, folder in enumerate(row.path.split("/")[:-1]):
                if role := role_of(folder):
                    found.setdefault(depth, {})[role] = row.path
    for paths in found.values():
        if len(paths) > 1:
            raise DataError(
                f"no split is stated, but paths lead through splits ({listed(list(paths.values()))}"
                "); add the column split, with train, val or test on every line"
            )


def _domain_names(rows: list[_Row]) -> tuple[str, ...]:
    """Return the sorted domains; none when no row names one."""
    named = [row for row in rows if row.domain]
    if named and len(named) < len(rows):
        lacking = next(row for row in rows if not row.domain)
        raise DataError(
            f"{lacking.where} has no domain, but {named[0].where} has {named[0].domain!r}; "
            "give every line one, or none"
        )
    return tuple(sorted({row.domain for row in named}))


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=keys_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
