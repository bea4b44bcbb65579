"""Choose the reader that a run's ``data.source`` needs."""

from dataclasses import replace
from pathlib import Path

from fedprompt.data import hub
from fedprompt.data.classes import listed_labels
from fedprompt.data.emoji import NAME as EMOJI
from fedprompt.data.emoji import read_emoji
from fedprompt.data.fashion_mnist import NAME as FASHION_MNIST
from fedprompt.data.fashion_mnist import read_fashion_mnist
from fedprompt.data.folder import read_folder
from fedprompt.data.manifest import SUFFIXES as MANIFESTS
from fedprompt.data.manifest import read_manifest, read_metadata
from fedprompt.data.splits import Splits
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig


def read(config: DataConfig) -> Splits:
    """Return the splits of the configured source, classes as the data has them.

    Raises
    ------
    DataError
        The source does not exist or is none of the known kinds.
    """
    columns = (config.image_column, config.label_column)
    if config.source == FASHION_MNIST:
        return read_fashion_mnist()
    if config.source == EMOJI:
        return read_emoji()
    if config.source.startswith(hub.PREFIX):
        return hub.read_hub(config.source, *columns)
    path = Path(config.source)
    if path.is_dir():
        return (
            hub.read_saved(path, *columns) if hub.is_saved_dataset(path) else _folder(path, config)
        )
    if path.is_file() and path.suffix.lower() in MANIFESTS:
        root = Path(config.root) if config.root else None
        return read_manifest(path, root, config.label_column)
    found = "is no manifest" if path.exists() else "does not exist"
    raise DataError(
        f"data.source = {config.source!r} {found}; expected {FASHION_MNIST}, {EMOJI}, a folder of "
        f"images, a manifest ({', '.join(MANIFESTS)}), a folder written by save_to_disk or "
        "hf:owner/name"
    )


def _folder(path: Path, config: DataConfig) -> Splits:
    """Return an image folder's splits: its metadata's when they have labels, else its folders'."""
    found = read_metadata(path, config.label_column)
    if isinstance(found, Splits):
        return found
    splits = read_folder(path, listed_labels(config.class_names))
    return replace(splits, notes=(found, *splits.notes)) if found else splits
