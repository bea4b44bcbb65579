"""The Gaussian mechanism on a round's updates: bound what one site can change, then hide it.

McMahan et al., Learning Differentially Private Recurrent Language Models (arXiv 1710.06963), with
a denominator that no reply can change.
"""

import math
import secrets
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fedprompt.prompt_state import difference, norm
from server.merge.rules import Dense

_random = secrets.SystemRandom()  # the operating system's: no seed of the run foretells the noise


def clipped_mean(updates: Iterable[Dense], current: Dense, clip_norm: float, sites: int) -> Dense:
    """Return ``current`` plus the sum of the clipped changes over ``sites``.

    One site changes it by at most ``clip_norm / sites`` in the L2 norm over all tensors, scalars
    included. ``sites`` is how many were asked: a site that is silent, refused or has nothing to say
    counts as a change of zero, so that nothing but its own term depends on what it sends.
    """
    total = {name: np.zeros_like(array) for name, array in current.items()}
    for update in updates:
        change = difference(update, current)
        length = norm(change)
        factor = min(1.0, clip_norm / length) if length else 1.0
        total = {name: total[name] + factor * change[name] for name in current}
    # asarray: numpy turns sums of 0-d arrays into scalars
    return {name: np.asarray(current[name] + total[name] / sites) for name in current}


def add_noise(mean: Dense, deviation: float) -> Dense:
    """Return ``mean`` with independent Gaussian noise on every entry, drawn afresh every time."""
    return {name: np.asarray(array + _draw(array.shape, deviation)) for name, array in mean.items()}


def _draw(shape: tuple[int, ...], deviation: float) -> npt.NDArray[np.float64]:
    values = [_random.gauss(0.0, deviation) for _ in range(math.prod(shape))]
    return np.array(values).reshape(shape)
