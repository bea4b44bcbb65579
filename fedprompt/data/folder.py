"""Read an image folder: a class is a folder, its name the label.

    photos/cat/1.jpg          photos/train/cat/1.jpg
    photos/dog/2.jpg          photos/test/dog/2.jpg     (val/ stands in for a missing test/)

Classes are in the order of their sorted folder names. Images may lie at any depth below their
class; hidden files and other suffixes are passed over, and the latter are counted. Links are
followed, for whoever owns the folder made them.

Splits are known by their names, in any letter case (`fedprompt.data.splits.role_of`). Where such
names stand beside others, above or below where they belong, or where a class could be meant, the
folder is refused: only a list of classes that holds every folder says that they are classes.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from fedprompt.data.classes import listed, spoken
from fedprompt.data.files import Files, passed_over, readable
from fedprompt.data.splits import Split, Splits, named_splits, role_of, split_word
from fedprompt.errors import DataError

# made by macOS, Synology and Windows, in small letters; they hold copies, thumbnails or waste
_OF_THE_SYSTEM = {
    *("#recycle", "$recycle.bin", "@eadir", "__macosx"),
    *("lost+found", "system volume information"),
}
_FILES_OF_THE_SYSTEM = {"desktop.ini", "thumbs.db"}


@dataclass
class _Found:
    """Gather what is seen below a folder, class by class."""

    other_suffixes: dict[str, Counter[str]] = field(default_factory=dict)
    links_back: list[str] = field(default_factory=list)
    called_as_splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_folder(root: Path, classes_listed: Collection[str] = ()) -> Splits:
    """Return the images of a folder of class folders, or of split folders of class folders.

    Parameters
    ----------
    classes_listed
        The names of ``data.class_names``, as they are spoken: a folder that is called as a split is
        a class when every folder beside it is listed, too.

    Raises
    ------
    DataError
        The folder cannot be read, has no class folders, or may be meant in two ways.
    """
    top = _folders(root)
    found = _Found()
    if not any(map(role_of, top)) or _are_classes(top, classes_listed):
        if not _all_listed(top, classes_listed):
            _check_no_splits(root, top)
            _note_shape(root, top, found)
        classes = tuple(top)
        train = _split(root, "", top, classes, found)
        return _splits(classes, train, None, found)
    names = _split_folders(root, top)
    train_name, test_name = names["train"], names.get("test") or names.get("val")
    if "val" in names and test_name != names["val"]:
        found.notes.append(f"{root / names['val']} is not used: {test_name} is the test split")
    in_train = _class_folders(top[train_name], classes_listed)
    in_test = _class_folders(top[test_name], classes_listed) if test_name else {}
    classes = tuple(sorted({*in_train, *in_test}))
    train = _split(root, train_name, in_train, classes, found)
    test = _split(root, test_name, in_test, classes, found) if test_name else None
    return _splits(classes, train, test, found)


def _splits(classes: tuple[str, ...], train: Split, test: Split | None, found: _Found) -> Splits:
    notes = [*found.notes]
    total = sum(found.other_suffixes.values(), Counter[str]())
    if total:
        notes.append(passed_over(total))
    if found.links_back:
        notes.append(
            f"{len(found.links_back)} linked folders lead to what is read already and are not "
            f"followed: {listed(found.links_back)}"
        )
    if found.called_as_splits:
        notes.append(
            f"{len(found.called_as_splits)} folders below classes are called as splits and are "
            f"read as parts of their class: {listed(found.called_as_splits)}"
        )
    lost = {name: passed_over(suffixes) for name, suffixes in found.other_suffixes.items()}
    return Splits(classes, False, train, test, notes=tuple(notes), passed_over=lost)


def _folders(folder: Path) -> dict[str, Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir() and _is_shown(path.name))
    except OSError as error:
        raise DataError(f"{folder} could not be read: {error.strerror}; set data.source") from error
    return {path.name: path for path in found}


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _OF_THE_SYSTEM


def _all_listed(folders: Mapping[str, Path], classes_listed: Collection[str]) -> bool:
    return bool(folders) and all(spoken(name) in classes_listed for name in folders)


def _are_classes(folders: Mapping[str, Path], classes_listed: Collection[str]) -> bool:
    """Say whether folders are classes, though some are called as splits are."""
    return _all_listed(folders, classes_listed) and not all(
        _all_listed(_folders(path), classes_listed) for path in folders.values()
    )


def _split_folders(root: Path, top: Mapping[str, Path]) -> dict[str, str]:
    """Return which folder is which split, when all folders are and one is train."""
    others = [name for name in top if not role_of(name)]
    splits = [name for name in top if role_of(name)]
    roles = {role_of(name) for name in splits}
    if others or "train" not in roles:
        what = (
            f"the folders {listed(others)} beside the splits {listed(splits)}"
            if others
            else f"the splits {listed(splits)} and none for training"
        )
        raise DataError(f"{root} holds {what}; {_both_ways(top)}")
    try:
        return {str(role): name for role, name in named_splits(top, str(root)).items()}
    except DataError as error:
        raise DataError(f"{error}; {_both_ways(top)}") from None


def _both_ways(top: Mapping[str, Path]) -> str:
    return (
        "if the classes lie in the splits, keep train, val and test there alone; if all of these "
        f"folders are classes, say so by data.class_names = {','.join(map(spoken, top))!r}"
    )


def _class_folders(split: Path, classes_listed: Collection[str]) -> dict[str, Path]:
    """Return the class folders of a split, none of which is a split once more."""
    folders = _folders(split)
    if not folders:
        raise _no_classes(split)
    again = [name for name in folders if role_of(name)]
    if again and not _all_listed(folders, classes_listed):
        raise DataError(
            f"{split} is a split and holds {listed(again)}, called as splits are; move the class "
            f"folders up into {split}, or, if these are classes, list all in data.class_names"
        )
    return folders


def _check_no_splits(root: Path, top: Mapping[str, Path]) -> None:
    """Refuse folders that differ in the name of a split alone, such as seg_train and seg_test."""
    for first, second in combinations(top, 2):
        one, other = split_word(first), split_word(second)
        if one and other and one[1] == other[1] and one[0] != other[0]:
            raise DataError(
                f"{root} holds {first!r} and {second!r}, which seem to be splits; rename them to "
                f"{one[0]} and {other[0]}, or, if all folders there are classes, say so by "
                f"data.class_names = {','.join(map(spoken, top))!r}"
            )


def _note_shape(root: Path, top: Mapping[str, Path], found: _Found) -> None:
    """Note where the class folders may not be the ones that were meant."""
    inner = {name: set(_folders(path)) for name, path in top.items()}
    for (first, one), (second, other) in combinations(inner.items(), 2):
        if len(one & other) > 1:
            found.notes.append(
                f"the classes are the folders {listed(list(top))}, and {first!r} and {second!r} "
                f"both hold {listed(sorted(one & other))}: if those are the classes, give a "
                "manifest, with a column domain for the folders above"
            )
            return
    if len(top) == 1:
        name = next(iter(top))
        if inner[name]:
            found.notes.append(
                f"{root} holds the folder {name!r} alone, and that holds "
                f"{listed(sorted(inner[name]))}: if those are meant, set data.source to "
                f"{root / name}"
            )


def _split(
    root: Path, prefix: str, folders: Mapping[str, Path], classes: tuple[str, ...], found: _Found
) -> Split:
    where = root / prefix
    if not folders:
        raise _no_classes(where)
    stray = [path.name for path in where.iterdir() if path.is_file() and readable(path)]
    if stray:
        found.notes.append(
            f"{len(stray)} images lie beside the class folders of {where} and belong to none: "
            f"{listed(sorted(stray))}"
        )
    labels: list[int] = []
    paths: list[str] = []
    for name, folder in folders.items():
        images = sorted(_images(folder, found, name))
        paths += [str(Path(prefix, name, path)) for path in images]
        labels += [classes.index(name)] * len(images)
    return Split(np.array(labels, dtype=np.int64), Files(root, paths))


def _no_classes(where: Path) -> DataError:
    return DataError(f"{where} has no class folders; expected {where}/<class>/<image>.jpg")


def _images(folder: Path, found: _Found, label: str) -> Iterator[str]:
    """Yield the paths of images below a class folder, each real folder read once."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        seen.add(here)
        kept = []
        for name in sorted(filter(_is_shown, folders)):
            target = (here / name).resolve()
            if target in seen or here.is_relative_to(target):
                found.links_back.append(str(Path(place, name)))
            else:
                seen.add(target)
                kept.append(name)
        folders[:] = kept
        _check_place(Path(place), folders)
        found.called_as_splits += [str(Path(place, name)) for name in folders if role_of(name)]
        for name in files:
            if name.startswith(".") or name.casefold() in _FILES_OF_THE_SYSTEM:
                continue
            if readable(Path(place, name)):
                yield str(Path(place).relative_to(folder) / name)
            else:
                suffixes = found.other_suffixes.setdefault(label, Counter())
                suffixes[Path(name).suffix.lower()] += 1


def _check_place(place: Path, folders: Collection[str]) -> None:
    """Refuse splits below a class, whose images would all become one split."""
    roles = {role: name for name in folders if (role := role_of(name))}
    if "train" in roles and len(roles) > 1:
        raise DataError(
            f"{place} holds the splits {listed(sorted(roles.values()))}; if the classes lie in "
            f"them, set data.source to {place}; if {place.name} is a class, move its splits above "
            f"it: train/{place.name}"
        )
