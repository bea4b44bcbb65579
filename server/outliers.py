"""Measure how far each site's update lies from the merged one: the trace of who misleads."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.rules import Dense
from server.verdict import Accepted


@dataclass(frozen=True)
class Measure:
    """Compare one site's update with the merged one; neither depends on the update's scale."""

    distance: float  # to the merged update, over the median of such distances; 1 is usual
    cosine: float  # with the merged update; 0 where one of them is zero


def measure(updates: Sequence[Accepted], current: Dense, merged: Dense) -> dict[int, Measure]:
    """Return each site's measure, by site.

    Parameters
    ----------
    updates
        What was merged, lifted.
    current, merged
        The lifted arrays before and after the merge.
    """
    target = _step(merged, current)
    steps = {update.site: _step(update.update, current) for update in updates}
    distances = {site: float(np.linalg.norm(step - target)) for site, step in steps.items()}
    usual = statistics.median(distances.values()) if distances else 0.0
    return {
        site: Measure(distances[site] / usual if usual else 1.0, _cosine(step, target))
        for site, step in sorted(steps.items())
    }


def _step(arrays: Dense, current: Dense) -> npt.NDArray[np.float64]:
    return np.concatenate([(arrays[name] - current[name]).ravel() for name in sorted(current)])


def _cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    found = float(one @ other) / lengths if lengths else 0.0
    return found if math.isfinite(found) else 0.0
