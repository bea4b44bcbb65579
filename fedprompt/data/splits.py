"""Hold what a source has, before the list of classes is settled."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedprompt.data.image_set import Source

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")  # the test split of a source without one


@dataclass(frozen=True, eq=False)
class Split:
    """Pair a source's images with their labels, int64 [images]."""

    labels: npt.NDArray[np.int64]
    source: Source


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
    """

    classes: tuple[str, ...]
    numbered: bool
    train: Split
    test: Split | None
    verified: bool = False
