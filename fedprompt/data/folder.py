"""Read an image folder: a class is a folder, its name the label.

    photos/cat/1.jpg          photos/train/cat/1.jpg
    photos/dog/2.jpg          photos/test/dog/2.jpg     (val/ stands in for a missing test/)

Classes are in the order of their sorted folder names. Images may lie at any depth below their
class; hidden files and other suffixes are passed over. A link to a class folder is followed, for
whoever owns the folder made it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedprompt.data.files import SUFFIXES, Files
from fedprompt.data.splits import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES, Split, Splits
from fedprompt.errors import DataError


def read_folder(root: Path) -> Splits:
    """Return the images of a folder of class folders, or of split folders of class folders.

    Raises
    ------
    DataError
        The folder cannot be read or has no class folders.
    """
    top = _folders(root)
    train = _first(top, TRAIN_NAMES)
    if train is None or set(top) - {*TRAIN_NAMES, *TEST_NAMES, *VALIDATION_NAMES}:
        classes = tuple(top)
        return Splits(classes, False, _split(root, "", top, classes, root), None)
    test = _first(top, TEST_NAMES) or _first(top, VALIDATION_NAMES)
    in_train = _folders(top[train])
    in_test = _folders(top[test]) if test else {}
    classes = tuple(sorted({*in_train, *in_test}))
    return Splits(
        classes,
        False,
        _split(root, train, in_train, classes, top[train]),
        _split(root, test, in_test, classes, top[test]) if test else None,
    )


def _folders(folder: Path) -> dict[str, Path]:
    try:
        found = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} could not be read: {error.strerror}; set data.source") from error
    return {path.name: path for path in found}


def _first(folders: Mapping[str, Path], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in folders), None)


def _split(
    root: Path, prefix: str, folders: Mapping[str, Path], classes: tuple[str, ...], where: Path
) -> Split:
    if not folders:
        raise DataError(f"{where} has no class folders; expected {where}/<class>/<image>.jpg")
    labels: list[int] = []
    paths: list[str] = []
    for name, folder in folders.items():
        found = _images(folder)
        paths += [str(Path(prefix, name, path)) for path in found]
        labels += [classes.index(name)] * len(found)
    return Split(np.array(labels, dtype=np.int64), Files(root, paths))


def _images(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(place).relative_to(folder)
        found += [
            str(inner / name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)
