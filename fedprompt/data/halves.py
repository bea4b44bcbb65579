"""Take the base or the new classes of a list: a prompt is tuned on one half, tried on the other.

Source: the base-to-new setting of CoCoOp (Zhou et al. 2022, arXiv 2203.05557; code,
`subsample_classes`): of n classes in order, the first ceil(n / 2) are base, the others new.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from fedprompt.data.classes import check_names
from fedprompt.data.image_set import ImageSet

Half = Literal["all", "base", "new"]


def half(names: Sequence[str], which: Half) -> tuple[str, ...]:
    """Return the names of the base or new classes, or all of them, in order.

    Raises
    ------
    DataError
        Fewer than two are left.
    """
    chosen = tuple(names)[_bounds(len(names), which)]
    if which != "all":
        check_names(chosen)
    return chosen


def half_of(images: ImageSet, which: Half) -> ImageSet:
    """Return the images of the base or new classes, labelled from 0 again, or all of them.

    Raises
    ------
    DataError
        Fewer than two classes are left.
    """
    if which == "all":
        return images
    bounds = _bounds(len(images.classes), which)
    inside = (images.labels >= bounds.start) & (images.labels < bounds.stop)
    chosen = images.subset(np.flatnonzero(inside))
    labels = chosen.labels - bounds.start
    return replace(chosen, classes=half(images.classes, which), labels=labels)


def _bounds(count: int, which: Half) -> slice:
    middle = (count + 1) // 2
    return {"all": slice(0, count), "base": slice(0, middle), "new": slice(middle, count)}[which]
