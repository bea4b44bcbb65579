"""What server and sites agree on when updates are summed in secret: ranges and layout.

SecAgg+ adds whole numbers modulo 2^32. An update is cut to a norm, laid out as one vector, and each
entry x becomes one of ``levels + 1`` steps over [-clip, clip], rounded up or down by chance. The
steps are chosen so coarse that no sum of all sites' entries can pass the modulus (F29).
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedprompt.prompt_state import Dense

MODULUS = 2**32  # Flower's; masks and sums live below it
_FINEST, _COARSEST = 2**22, 2**16  # levels: Flower's default, and the least that still trains

Vector = npt.NDArray[np.float64]


def levels(sites: int) -> int:
    """Return how many steps an entry may have, so that the sum over all sites fits the modulus.

    Zero if that would leave fewer than 2^16: too many sites for one sum.
    """
    most = 1 << ((MODULUS - 1) // sites).bit_length() - 1  # the power of two below
    return min(_FINEST, most) if most >= _COARSEST else 0


def step(clip: float, levels: int) -> float:
    """Return the largest rounding error of an entry, and of a mean of entries."""
    return 2 * clip / levels


def flatten(dense: Dense) -> Vector:
    """Return all entries in one vector, by name."""
    return np.concatenate([dense[name].ravel() for name in sorted(dense)])


def unflatten(vector: Vector, like: Dense) -> Dense:
    """Return a vector's entries under the names and shapes of ``like``."""
    found, start = {}, 0
    for name in sorted(like):
        size = like[name].size
        found[name] = vector[start : start + size].reshape(like[name].shape)
        start += size
    return found


def shorten(vector: Vector, clip: float, levels: int) -> Vector:
    """Return a change cut so that its norm stays within ``clip`` even after rounding."""
    limit = clip - math.sqrt(vector.size) * step(clip, levels)
    norm = float(np.linalg.norm(vector))
    return vector * (limit / norm) if norm > limit else vector


def agreed_clip(settings: Mapping[str, object]) -> float:
    """Return the norm a run's settings cut updates to; 0 if they name none."""
    if settings.get("privacy.noise_multiplier"):
        return float(str(settings["privacy.clip_norm"]))
    return float(str(settings.get("server.clip_norm", 0.0)))
