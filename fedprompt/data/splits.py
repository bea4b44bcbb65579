"""Hold what a source has, before the list of classes is settled."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedprompt.data.image_set import Source, no_domains

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")  # the test split of a source without one


@dataclass(frozen=True, eq=False)
class Split:
    """Pair a source's images with their labels, int64 [images], and their domains, if any."""

    labels: npt.NDArray[np.int64]
    source: Source
    domains: npt.NDArray[np.int64] = field(default_factory=no_domains)


@dataclass(frozen=True, eq=False)
class Splits:
    """Hold the splits of one source.

    Attributes
    ----------
    classes
        The labels' names as the source has them, in order.
    numbered
        Whether the source itself numbers its classes, so that a list of names can rename them.
    test
        None when the source has no test split.
    verified
        Whether the bytes were compared with a pinned hash, so that all images are readable.
    domain_names
        What the splits' domains are called, in order; empty when the source has no domains.
    """

    classes: tuple[str, ...]
    numbered: bool
    train: Split
    test: Split | None
    verified: bool = False
    domain_names: tuple[str, ...] = ()
