"""How much the memory of long-lived processes grows, from samples by life and round."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.processes import Life

Samples = Sequence[tuple[int, int]]  # (round, bytes)

# rounds of a life at 200 rounds of a run; in proportion for other runs
WARM, SETTLED, LEAST, LAST, SCALE = 10, 30, 60, 20, 200


@dataclass(frozen=True)
class Growth:
    """Hold what a kind of process held after its warm-up and at its end, over its long lives."""

    lives: int
    early: float  # median bytes
    late: float
    relative: float  # median over the lives of late / early - 1
    worst: float


def growth(samples: Mapping[Life, Samples], rounds: int) -> dict[str, Growth]:
    """Return the growth of each kind of process that had a life long enough.

    A life counts if it lasts 60 of 200 rounds. Its medians over its rounds 10 to 30 and over its
    last 20 are compared.
    """
    found = defaultdict[str, list[tuple[float, float]]](list)
    for life, told in samples.items():
        if pair := medians(told, rounds / SCALE):
            found[life.kind].append(pair)
    return {kind: _growth(pairs) for kind, pairs in sorted(found.items())}


def medians(told: Samples, scale: float) -> tuple[float, float] | None:
    """Return the medians of a life after its warm-up and at its end; None if it was too short."""
    if not told:
        return None
    first, last = told[0][0], told[-1][0]
    if last - first < LEAST * scale:
        return None
    early = [size for r, size in told if first + WARM * scale <= r <= first + SETTLED * scale]
    late = [size for r, size in told if r > last - LAST * scale]
    return (statistics.median(early), statistics.median(late)) if early and late else None


def _growth(pairs: Sequence[tuple[float, float]]) -> Growth:
    relative = [late / early - 1 for early, late in pairs]
    return Growth(
        lives=len(pairs),
        early=statistics.median(early for early, _ in pairs),
        late=statistics.median(late for _, late in pairs),
        relative=statistics.median(relative),
        worst=max(relative),
    )
