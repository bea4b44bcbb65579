"""Hold labelled images of known classes, wherever their bytes lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes

Indices = npt.NDArray[np.int64]


class Source(Protocol):
    """Give the encoded bytes and a name of any image; read when asked, never held."""

    def content(self, index: int) -> bytes:
        """Return the bytes of one image file; DataError when they cannot be read."""

    def name(self, index: int) -> str:
        """Return what a person would look for: a path, or a row number."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Label some images of one source; a subset shares the source and copies no bytes.

    Attributes
    ----------
    classes
        Ordered class names, as they stand in prompts.
    labels
        int64 [images], indices into ``classes``.
    source
        Where the bytes lie.
    rows
        int64 [images], the place of each image in ``source``.
    """

    classes: tuple[str, ...]
    labels: Indices
    source: Source
    rows: Indices

    def __post_init__(self) -> None:
        if self.labels.shape != self.rows.shape or self.labels.ndim != 1:
            raise DataError(
                f"found labels {self.labels.shape} for rows {self.rows.shape}; expected one each"
            )
        if self.labels.size and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"labels run from {self.labels.min()} to {self.labels.max()}; "
                f"expected 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def content(self, index: int) -> bytes:
        """Return the encoded bytes of image ``index``; DataError when they cannot be read."""
        return self.source.content(int(self.rows[index]))

    def name(self, index: int) -> str:
        """Return the name of image ``index`` in its source."""
        return self.source.name(int(self.rows[index]))

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the encoded bytes, 64 hexadecimal digits: the cache's key."""
        return sha256_bytes(self.content(index))

    def subset(self, indices: Sequence[int] | Indices) -> "ImageSet":
        """Return the images at ``indices``, in that order; none gives an empty set."""
        chosen = np.asarray(indices, dtype=np.int64)
        return ImageSet(self.classes, self.labels[chosen], self.source, self.rows[chosen])

    def counts(self) -> Indices:
        """Return the number of images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def image_set(classes: Sequence[str], labels: Sequence[int] | Indices, source: Source) -> ImageSet:
    """Return the set of all images of a source, one label each."""
    values = np.asarray(labels, dtype=np.int64)
    return ImageSet(tuple(classes), values, source, np.arange(len(values), dtype=np.int64))
