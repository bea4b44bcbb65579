"""Name the sites whose updates keep pulling elsewhere: the trace of false labels and attacks (F08).

A site stands out in a round when its cosine with the merged update is far below the round's
median, or its distance far above it: three robust standard deviations (median absolute deviation),
at least 0.3 or half the median. It is named when it does so in most of at least three rounds. A
site with rare classes may be named too: it is a reason to ask, no proof.
"""

import statistics
from collections.abc import Mapping, Sequence

from fedprompt.round_record import Measure, RoundRecord

LEAST_ROUNDS, LEAST_SITES = 3, 4  # below, nothing is usual
_DEVIATIONS = 3 * 1.4826  # median absolute deviations; 1.4826 makes one a standard deviation
_LEAST_COSINE, _LEAST_DISTANCE = 0.3, 0.5  # how far from the median is far in any case


def standing_out(records: Sequence[RoundRecord]) -> dict[int, tuple[int, int]]:
    """Return the sites that stand out: in how many rounds, and of how many."""
    counts: dict[int, tuple[int, int]] = {}
    for record in records:
        if len(record.outliers) < LEAST_SITES:
            continue
        odd = _odd(record.outliers)
        for site in record.outliers:
            out, measured = counts.get(site, (0, 0))
            counts[site] = out + (site in odd), measured + 1
    return {
        site: (out, measured)
        for site, (out, measured) in sorted(counts.items())
        if measured >= LEAST_ROUNDS and 2 * out > measured
    }


def _odd(measures: Mapping[int, Measure]) -> set[int]:
    """Return the sites that stand out in one round."""
    low, _ = _limits([m.cosine for m in measures.values()], _LEAST_COSINE)
    _, high = _limits([m.distance for m in measures.values()], _LEAST_DISTANCE)
    return {site for site, m in measures.items() if m.cosine < low or m.distance > high}


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values)
    far = max(least, _DEVIATIONS * spread)
    return middle - far, middle + far
