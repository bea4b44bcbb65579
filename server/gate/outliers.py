"""Measure how far each site's update lies from the merged one: the trace of who misleads."""

import math
import statistics
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedprompt.round_record import Measure
from server.gate.verdict import Accepted
from server.merge.rules import Dense


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
        site: Measure(distance=_relative(distances[site], usual), cosine=_cosine(step, target))
        for site, step in sorted(steps.items())
    }


def _step(arrays: Dense, current: Dense) -> npt.NDArray[np.float64]:
    return np.concatenate([(arrays[name] - current[name]).ravel() for name in sorted(current)])


def _relative(distance: float, usual: float) -> float:
    return min(distance / usual, sys.float_info.max) if usual else 1.0


def _cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    found = float(one @ other) / lengths if lengths else 0.0
    return found if math.isfinite(found) else 0.0
