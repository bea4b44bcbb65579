"""What a reply may say at most, whatever the others say: finite numbers can do harm as well.

The bounds lie far from anything an honest site sends and far from where sums, products and float16
overflow. What lies beyond is refused by name, so that no later step has to expect it.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from fedprompt.wire import LARGEST_NUMBER

MOST_IMAGES = 10**9  # of one site
MOST_MEDIANS = 2  # times the median count that a site's own word weighs, where none was agreed
LARGEST_LOSS = 1e6  # nats, a mean over images; CLIP's logits allow about 200
_ROOM = 128  # bits that a sum of weights may have


def is_loss(value: object) -> TypeGuard[float]:
    """Tell whether a number can be a mean cross-entropy."""
    return isinstance(value, int | float) and 0 <= value <= LARGEST_LOSS


def weights(counts: Mapping[int, int], agreed: Collection[int]) -> dict[int, int]:
    """Return what sites weigh, by site.

    A count that nobody agreed on is the site's own word. It weighs `MOST_MEDIANS` times the median
    of all counts at most (the lower one of two): so no site owns a mean by saying so.

    Parameters
    ----------
    counts
        Images by site, each at most what the site was enrolled with.
    agreed
        Sites whose number of images was agreed on.
    """
    if not counts:
        return {}
    most = MOST_MEDIANS * sorted(counts.values())[(len(counts) - 1) // 2]
    return {site: n if site in agreed else min(n, most) for site, n in counts.items()}


def largest_number(arrays: Mapping[str, npt.NDArray[np.floating]]) -> float:
    """Return the largest magnitude in some arrays; infinity or NaN if one is not finite."""
    # numpy's maximum, because Python's may pass a NaN over
    return float(np.max([0.0, *(np.abs(a).max(initial=0.0) for a in arrays.values())]))


def merged_limit(current: Mapping[str, npt.NDArray[np.floating]]) -> float:
    """Return the largest number that a merged prompt may hold, given the lifted one before it.

    A prompt that was larger from its start keeps its room.
    """
    return max(LARGEST_NUMBER, largest_number(current))


def update_limit(current: Mapping[str, npt.NDArray[np.floating]]) -> float:
    """Return the largest number that a lifted update may hold: a site may go beyond the merged.

    Rounding and truncation can carry a merged prompt a little beyond its own limit, and honest
    sites start from there.
    """
    return 2 * merged_limit(current)


def weighted_mean(pairs: Iterable[tuple[int, float]]) -> float:
    """Return the mean of (weight, value) pairs; finite wherever the values are.

    A weight times a value may overflow where their mean does not, so values are scaled meanwhile by
    a power of two, which costs no digit.
    """
    pairs = list(pairs)
    total = sum(weight for weight, _ in pairs)
    scaled = sum(weight * math.ldexp(value, -_ROOM) for weight, value in pairs)
    return math.ldexp(scaled / total, _ROOM)
