"""Read Hugging Face datasets: written by `save_to_disk`, or from the hub as ``hf:owner/name``.

Nothing is decoded here: images are kept as the bytes they were saved with, so that the one decode
rule applies. From the hub, ``hf:owner/name:configuration`` names one of several configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedprompt.data.classes import label_text
from fedprompt.data.files import file_bytes
from fedprompt.data.splits import Split, Splits, named_splits
from fedprompt.errors import DataError
from fedprompt.reach import unreachable

PREFIX = "hf:"
_SAVED = ("dataset_dict.json", "dataset_info.json")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Give the encoded images of one Arrow table."""

    table: Any
    column: str
    origin: str

    def content(self, index: int) -> bytes:
        image = self.table[index][self.column]
        if image is None:
            raise DataError(f"{self.name(index)} holds no image")
        content, path = image["bytes"], image["path"]
        if content is not None:
            return bytes(content)
        if not path:
            raise DataError(f"{self.name(index)} has neither bytes nor a file")
        return file_bytes(Path(path))

    def name(self, index: int) -> str:
        return f"{self.origin}[{index}]"


def is_saved_dataset(folder: Path) -> bool:
    """Say whether `datasets.save_to_disk` wrote this folder."""
    return any((folder / name).is_file() for name in _SAVED)


def read_saved(folder: Path, image_column: str = "", label_column: str = "") -> Splits:
    """Return the images of a dataset on disk, without any network.

    Raises
    ------
    DataError
        The folder is broken or its columns are not an image and a class.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise nearly any type on broken files
        raise DataError(f"{folder} is no readable Hugging Face dataset: {error}") from error
    return _splits(loaded, image_column, label_column, str(folder))


def read_hub(reference: str, image_column: str = "", label_column: str = "") -> Splits:
    """Return the images of ``hf:owner/name[:configuration]``, downloaded once by `datasets`.

    Raises
    ------
    DataError
        The hub cannot be reached, has no such dataset, or its columns do not fit.
    """
    import datasets

    name, _, configuration = reference.removeprefix(PREFIX).partition(":")
    _check_reachable(reference)
    try:
        loaded = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # a dozen types, from the network to a broken file
        raise DataError(
            f"{reference} could not be fetched from the Hugging Face hub: {error}; check the name "
            "and the network, or give the folder of a dataset saved with save_to_disk"
        ) from error
    return _splits(loaded, image_column, label_column, reference)


def _check_reachable(reference: str) -> None:
    if why := unreachable():
        raise DataError(
            f"{reference}: {why}; connect to the internet, set HF_HUB_OFFLINE=1 to use what was "
            "downloaded before, or give a folder written by save_to_disk"
        )


def _splits(loaded: Any, image_column: str, label_column: str, origin: str) -> Splits:
    tables: Mapping[str, Any] = loaded if isinstance(loaded, dict) else {"train": loaded}
    named = named_splits(tables, origin)
    if "train" not in named:
        raise DataError(f"{origin} has the splits {', '.join(tables)}; expected train")
    train, test_name = tables[named["train"]], named.get("test") or named.get("val")
    test = tables[test_name] if test_name else None
    unused = [name for name in tables if name not in (named["train"], test_name)]
    image = image_column or _only_column(train, "Image", ("image", "img"), origin)
    label = label_column or _only_column(train, "ClassLabel", ("label", "labels"), origin)
    for name in (image, label):
        if name not in train.features:
            raise DataError(f"{origin} has no column {name!r}; has {', '.join(train.features)}")
    names = getattr(train.features[label], "names", None)
    classes = tuple(names or sorted({*_texts(train, label, origin)}))
    return Splits(
        classes,
        names is not None,
        _split(train, image, label, classes, f"{origin}/{named['train']}"),
        None if test is None else _split(test, image, label, classes, f"{origin}/{test_name}"),
        notes=(f"splits that are not used: {', '.join(unused)}",) if unused else (),
    )


def _only_column(table: Any, feature: str, usual: tuple[str, ...], origin: str) -> str:
    typed = [name for name, kind in table.features.items() if type(kind).__name__ == feature]
    named = [name for name in usual if name in table.features]
    found = typed if len(typed) == 1 else [n for n in named if n in typed or not typed][:1]
    if not found:
        raise DataError(
            f"{origin} has the columns {', '.join(table.features)}, none of them clearly the "
            f"{feature} column; set data.image_column and data.label_column"
        )
    return str(found[0])


def _texts(table: Any, label: str, origin: str) -> list[str]:
    """Return the labels of a column that is no ClassLabel, as text."""
    return [label_text(f"{origin}[{row}]", value) for row, value in enumerate(table[label][:])]


def _split(table: Any, image: str, label: str, classes: tuple[str, ...], origin: str) -> Split:
    import datasets

    try:
        table = table.select_columns([image, label])
        table = table.cast_column(image, datasets.Image(decode=False))
        values = table[label][:]
        if hasattr(table.features[label], "names"):
            labels = np.array(values, dtype=np.int64)
        else:
            number_of = {name: number for number, name in enumerate(classes)}
            texts = _texts(table, label, origin)
            labels = np.array([number_of[text] for text in texts], dtype=np.int64)
    except DataError:
        raise
    except Exception as error:  # pyarrow's own errors for columns of another kind
        raise DataError(
            f"{origin}: columns {image!r} and {label!r} are no images and classes: {error}"
        ) from error
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(
            f"{origin}: labels run from {labels.min()} to {labels.max()}; expected 0 to "
            f"{len(classes) - 1} (-1 means that this split hides its labels)"
        )
    return Split(labels, _Rows(table, image, origin))
