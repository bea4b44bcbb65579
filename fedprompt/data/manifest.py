"""Read a manifest: a list of images with their labels.

CSV with the header ``path,label``, and ``split`` and ``domain`` if wanted; JSON lines with the same
keys (a domain is the camera, hand or hospital an image comes from; every line has one, or none);
or CoOp's ``split_zhou_*.json``, ``{"train": [[path, number, class name], ...], "val": ..., "test":
...}``. A path is relative to the manifest's folder, or to ``data.root``; it may not leave that
folder. An absolute path is taken when it lies inside, so ``data.root = "/"`` allows any (F33).
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedprompt.data.files import Files, inside
from fedprompt.data.splits import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES, Split, Splits
from fedprompt.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".json")
_SPLIT_OF = (
    dict.fromkeys(("", *TRAIN_NAMES), "train")
    | dict.fromkeys(TEST_NAMES, "test")
    | dict.fromkeys(VALIDATION_NAMES, "val")
)


class _Row(NamedTuple):
    where: str  # "line 3": for messages
    path: str
    label: str
    split: str
    domain: str = ""


def read_manifest(manifest: Path, root: Path | None = None) -> Splits:
    """Return the images that a manifest lists; classes are its sorted labels, or as numbered.

    Raises
    ------
    DataError
        The manifest cannot be read, a line is broken, or a path leaves its folder.
    """
    base = (root or manifest.parent).resolve()
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{manifest} could not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest} is not UTF-8 text: {error}") from error
    try:
        numbered = manifest.suffix == ".json"
        rows, classes = _read_coop(text) if numbered else _read_rows(text, manifest.suffix)
        return _splits(rows, classes, numbered, base)
    except DataError as error:
        raise DataError(f"{manifest}: {error}") from error


def _read_rows(text: str, suffix: str) -> tuple[list[_Row], tuple[str, ...]]:
    rows = list(_csv_rows(text) if suffix == ".csv" else _jsonl_rows(text))
    return rows, tuple(sorted({row.label for row in rows}))


def _csv_rows(text: str) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise DataError(
                f"the header is {reader.fieldnames}; expected path,label[,split][,domain]"
            )
        for row in reader:
            yield _row(f"line {reader.line_num}", row)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is broken: {error}") from error


def _jsonl_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = _json(line, f"line {number}")
        if not isinstance(row, dict):
            raise DataError(f"line {number} is no object; expected {{'path': ..., 'label': ...}}")
        yield _row(f"line {number}", row)


def _row(where: str, row: dict[str, object]) -> _Row:
    path, label, split = (row.get(key) for key in ("path", "label", "split"))
    if not isinstance(path, str) or not path:
        raise DataError(f"{where} has no path")
    if not isinstance(label, str | int) or isinstance(label, bool) or not str(label).strip():
        raise DataError(f"{where} has no label")
    domain = "" if row.get("domain") is None else row["domain"]
    if not isinstance(domain, str | int) or isinstance(domain, bool):
        raise DataError(f"{where}: the domain is a {type(domain).__name__}; expected a name")
    name = str(domain).strip()
    if not name.isprintable():
        raise DataError(f"{where}: the domain {name!r} has unprintable characters")
    return _Row(where, path, str(label).strip(), str(split or "").strip().lower(), name)


def _read_coop(text: str) -> tuple[list[_Row], tuple[str, ...]]:
    tree = _json(text, "the file")
    if not isinstance(tree, dict) or not isinstance(tree.get("train"), list):
        raise DataError('expected {"train": [[path, number, class name], ...], ...}')
    rows: list[_Row] = []
    names: dict[int, str] = {}
    for split, items in tree.items():
        for place, item in enumerate(items if isinstance(items, list) else [items]):
            match item:
                case [str() as path, int() as number, str() as name] if path and name:
                    if names.setdefault(number, name) != name:
                        raise DataError(f"class {number} is both {names[number]!r} and {name!r}")
                    rows.append(_Row(f"{split}[{place}]", path, name, split))
                case _:
                    raise DataError(f"{split}[{place}] is not [path, number, class name]")
    return rows, tuple(names[number] for number in sorted(names))


def _splits(rows: list[_Row], classes: tuple[str, ...], numbered: bool, base: Path) -> Splits:
    names = _domain_names(rows)
    grouped: dict[str, list[_Row]] = {"train": [], "val": [], "test": []}
    for row in rows:
        split = _SPLIT_OF.get(row.split)
        if split is None:
            raise DataError(f"{row.where}: split {row.split!r}; expected train, val or test")
        grouped[split].append(row)
    made = {split: _split(members, classes, names, base) for split, members in grouped.items()}
    test = made["test" if grouped["test"] else "val"]
    kept = test if len(test.labels) else None
    return Splits(classes, numbered, made["train"], kept, domain_names=names)


def _split(
    rows: list[_Row], classes: tuple[str, ...], domain_names: tuple[str, ...], base: Path
) -> Split:
    number_of = {name: number for number, name in enumerate(classes)}
    domain_of = {name: number for number, name in enumerate(domain_names)}
    labels = np.array([number_of[row.label] for row in rows], dtype=np.int64)
    domains = np.array([domain_of[row.domain] for row in rows if domain_names], dtype=np.int64)
    return Split(labels, Files(base, [_path(row, base) for row in rows]), domains)


def _path(row: _Row, base: Path) -> str:
    try:
        return inside(base, row.path)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error


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
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
