"""Bulyan over flat updates: choose by Krum one by one, then average what lies in the middle.

Source: El Mhamdi, Guerraoui and Rouault, arXiv 1802.07927, section 4.
"""

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [replies numbers]


def bulyan(points: Points, byzantine: int) -> npt.NDArray[np.float64]:
    """Return the merged update [numbers] of at least 4 f + 3 points, f of them hostile.

    Of n - 2 f chosen points, each number is the mean of the n - 4 f values nearest to their median.
    """
    chosen = points[one_by_one(points, byzantine, len(points) - 2 * byzantine)]
    away = np.abs(chosen - np.median(chosen, axis=0))
    kept = np.argsort(away, axis=0, kind="stable")[: len(chosen) - 2 * byzantine]
    mean: npt.NDArray[np.float64] = np.take_along_axis(chosen, kept, axis=0).mean(axis=0)
    return mean


def one_by_one(points: Points, byzantine: int, count: int) -> list[int]:
    """Return ``count`` rows, each Krum's choice among those left.

    Where one neighbour decides, two points that are each other's nearest have the same score; the
    one with the nearer further neighbours is taken, so that the order of the sites does not matter.
    """
    distances = np.stack([np.sum((points - point) ** 2, axis=1) for point in points])
    left, chosen = list(range(len(points))), list[int]()
    while len(chosen) < count:
        ranked = np.sort(distances[np.ix_(left, left)], axis=1)[:, 1:]  # without the point itself
        near = max(1, len(left) - byzantine - 2)
        keys = np.column_stack([ranked[:, :near].sum(axis=1), ranked])
        best = int(np.lexsort(keys.T[::-1])[0])
        chosen.append(left.pop(best))
    return chosen
