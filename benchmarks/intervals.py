"""How far a mean over few seeds may be off."""

import math
import statistics
from collections.abc import Sequence

T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by seeds, 95 %, two sides


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % interval, by Student's t over two to five values."""
    return widening(len(values)) * statistics.stdev(values)


def widening(count: int) -> float:
    """Return by what the standard deviation (n - 1) is multiplied to give that half width."""
    return T[count] / math.sqrt(count)
