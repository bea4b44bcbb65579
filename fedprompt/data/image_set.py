"""Hold labelled images of known classes, wherever their bytes lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedprompt.data.decode import MAX_PIXELS, Rgb, decode
from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes

Indices = npt.NDArray[np.int64]


class Source(Protocol):
    """Give the encoded bytes and a name of any image; read when asked, never held."""

    def content(self, index: int) -> bytes:
        """Return the bytes of one image file; DataError when they cannot be read."""

    def name(self, index: int) -> str:
        """Return what a person would look for: a path, or a row number."""


def no_domains() -> Indices:
    """Return the domains of images that have none: int64 [0]."""
    return np.zeros(0, dtype=np.int64)


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
    domains
        int64 [images], indices into ``domain_names``; int64 [0] when the source has no domains.
    domain_names
        Who drew, took or measured the images; empty when nobody says.
    white_level
        Of their 16-bit grey (``data.white_level``); 0 is the highest of the type.
    """

    classes: tuple[str, ...]
    labels: Indices
    source: Source
    rows: Indices
    domains: Indices = field(default_factory=no_domains)
    domain_names: tuple[str, ...] = ()
    white_level: int = 0

    def __post_init__(self) -> None:
        if self.labels.shape != self.rows.shape or self.labels.ndim != 1:
            raise DataError(
                f"found labels {self.labels.shape} for rows {self.rows.shape}; expected one each"
            )
        expected = self.labels.shape if self.domain_names else (0,)
        if self.domains.shape != expected:
            raise DataError(
                f"found domains {self.domains.shape} for labels {self.labels.shape} and "
                f"{len(self.domain_names)} names of domains; expected {expected}"
            )
        _check_range("labels", self.labels, len(self.classes))
        _check_range("domains", self.domains, len(self.domain_names))

    def __len__(self) -> int:
        return len(self.rows)

    def content(self, index: int) -> bytes:
        """Return the encoded bytes of image ``index``; DataError when they cannot be read."""
        return self.source.content(int(self.rows[index]))

    def pixels(self, index: int, max_pixels: int = MAX_PIXELS) -> Rgb:
        """Return image ``index`` decoded, uint8 [height width 3]; DataError as `decode`."""
        content = self.content(index)
        return decode(content, max_pixels=max_pixels, white_level=self.white_level)

    def name(self, index: int) -> str:
        """Return the name of image ``index`` in its source."""
        return self.source.name(int(self.rows[index]))

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the encoded bytes, 64 hexadecimal digits: the cache's key."""
        return sha256_bytes(self.content(index))

    def subset(self, indices: Sequence[int] | Indices) -> "ImageSet":
        """Return the images at ``indices``, in that order; none gives an empty set."""
        chosen = np.asarray(indices, dtype=np.int64)
        domains = self.domains[chosen] if self.domain_names else self.domains
        return replace(self, labels=self.labels[chosen], rows=self.rows[chosen], domains=domains)

    def of_domain(self, domain: int) -> "ImageSet":
        """Return the images of one domain, by its number."""
        return self.subset(np.flatnonzero(self.domains == domain))

    def counts(self) -> Indices:
        """Return the number of images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def image_set(
    classes: Sequence[str],
    labels: Sequence[int] | Indices,
    source: Source,
    domains: Sequence[int] | Indices = (),
    domain_names: Sequence[str] = (),
    white_level: int = 0,
) -> ImageSet:
    """Return the set of all images of a source, one label each, and one domain if it has any."""
    values = np.asarray(labels, dtype=np.int64)
    rows = np.arange(len(values), dtype=np.int64)
    numbers = np.asarray(domains, dtype=np.int64)
    return ImageSet(tuple(classes), values, source, rows, numbers, tuple(domain_names), white_level)


def _check_range(what: str, values: Indices, count: int) -> None:
    if values.size and not 0 <= values.min() <= values.max() < count:
        raise DataError(
            f"{what} run from {values.min()} to {values.max()}; expected 0 to {count - 1}"
        )
