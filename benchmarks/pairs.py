"""Time runs in turn in one process: ratios of median CPU times, and how far the pairs lie apart."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Run = Callable[[], object]
Times = dict[str, list[float]]

FEWEST, MOST = 5, 101  # rounds


class Ratio(NamedTuple):
    """Say how many times faster something is than its reference.

    Attributes
    ----------
    median
        Median time of the reference over median time of the other.
    low, high
        Quartiles of the ratios of the single pairs.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def in_turn(
    runs: Mapping[str, Run],
    seconds: float,
    *,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Return the times of each run, in seconds: rounds of all of them, every other one backwards.

    Parameters
    ----------
    runs
        What is timed, by name; each is called once before, for what is only done once.
    seconds
        For all of them together; at least `FEWEST` and at most `MOST` rounds are made.
    clock
        The process's CPU time by default: another process on the machine does not count.
    """
    took: Times = {name: [] for name in runs}
    for run in runs.values():
        run()
    order = list(runs.items())
    begin, rounds = clock(), 0
    while not _enough(rounds, clock() - begin, seconds):
        for name, run in order if rounds % 2 == 0 else reversed(order):
            started = clock()
            run()
            took[name].append(clock() - started)
        rounds += 1
    return took


def _enough(rounds: int, spent: float, seconds: float) -> bool:
    return rounds >= MOST or (rounds >= FEWEST and spent * (1 + 1 / rounds) > seconds)


def ratio(reference: Sequence[float], changed: Sequence[float]) -> Ratio:
    """Return how many times faster ``changed`` is, of times that were taken in turn."""
    pairs = np.array(reference) / np.maximum(changed, 1e-9)
    low, high = (float(found) for found in np.quantile(pairs, (0.25, 0.75)))
    faster = statistics.median(reference) / max(statistics.median(changed), 1e-9)
    return Ratio(faster, low, high)


def ratios(times: Times, reference: str) -> dict[str, Ratio]:
    """Return how many times faster than the reference each other run is."""
    return {name: ratio(times[reference], own) for name, own in times.items() if name != reference}


def milliseconds(times: Sequence[float]) -> float:
    """Return the median time in milliseconds."""
    return 1e3 * statistics.median(times) if times else math.nan
