"""Cluster weighted points by k-means: numpy and scikit-learn, so that a server loads no torch."""

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [points width]
Weights = npt.NDArray[np.float64]  # [points]
LARGEST = 1.5  # norm of a centre, over the usual one (ours)
_SEEDS = 2**32  # scikit-learn takes no larger ones


def cut(points: Points, largest: float) -> Points:
    """Return points whose norm is at most ``largest``, each in its own direction."""
    norms = np.linalg.norm(points, axis=-1, keepdims=True)
    short: Points = points * np.minimum(1.0, largest / np.maximum(norms, np.finfo(float).tiny))
    return short


def centres(points: Points, weights: Weights, length: int, seed: int) -> Points:
    """Return the centres [length width] of clusters of weighted points, by k-means.

    Equal points are one heavier point. Of no more points than centres, each is a centre, and some
    are there twice.
    """
    distinct, place = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) <= length:
        found: Points = distinct[np.arange(length) % len(distinct)]
        return found
    # takes long to import, so only those who cluster pay
    from sklearn.cluster import KMeans

    summed = np.bincount(place.reshape(-1), weights, len(distinct))
    means = KMeans(length, n_init=1, random_state=seed % _SEEDS)
    centred: Points = means.fit(distinct, sample_weight=summed).cluster_centers_
    return centred
