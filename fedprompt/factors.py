"""The way back from averaged products to low-rank factors (see `fedprompt.dense`)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from fedprompt.dense import Dense, pairs

Arrays = dict[str, npt.NDArray[np.float32]]
Matrix = Float64[np.ndarray, "length width"]
LeftFactor = Float32[np.ndarray, "length rank"]
RightFactor = Float32[np.ndarray, "rank width"]

# A left column this much shorter than its predecessor would stall both gradients; see `refactor`.
STALL = 0.1


def nearest(
    averaged: Dense, current: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[Arrays, float]:
    """Return arrays of ``current``'s names and ranks whose products are nearest to averaged ones.

    Truncated SVD is the nearest matrix of its rank (Eckart and Young, 1936). Beside them: the
    truncation error, in relative Frobenius norm over all matrices together.
    """
    arrays = {name: averaged[name].astype(np.float32) for name in current if name in averaged}
    lost = total = 0.0
    for m in pairs(current):
        left, right, tail = refactor(averaged[m], current[f"{m}.A"], current[f"{m}.B"])
        arrays |= {f"{m}.A": left, f"{m}.B": right}
        lost += tail
        total += float(np.sum(averaged[m] ** 2))
    error = float(np.sqrt(lost / total)) if total else 0.0
    return {name: arrays[name] for name in current}, error


def refactor(
    matrix: Matrix, left: LeftFactor, right: RightFactor
) -> tuple[LeftFactor, RightFactor, float]:
    """Return factors of the nearest matrix of ``left``'s rank, and the squared error.

    Both factors carry sqrt(sigma). Two exceptions keep them off the saddle A = B = 0, where both
    gradients vanish: a component without any weight keeps its previous left column (so a prompt
    that has not moved keeps its start), and one so light that balancing would shrink the left
    column below a tenth of its predecessor keeps the predecessor's length. Signs are fixed by the
    largest entry of each left vector, so that equal products give equal factors.
    """
    rank = left.shape[1]
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    signs = np.sign(u[np.argmax(np.abs(u), axis=0), np.arange(u.shape[1])])
    u, vt = u * signs, vt * signs[:, None]
    new_left, new_right = left.copy(), right.copy()
    negligible = np.finfo(np.float64).eps * max(matrix.shape) * sigma[0]
    for i in range(rank):
        if i < len(sigma) and sigma[i] > negligible:
            length = _length(float(sigma[i]), float(np.linalg.norm(left[:, i])))
            new_left[:, i], new_right[i] = u[:, i] * length, vt[i] * (sigma[i] / length)
        elif left[:, i].any():
            new_right[i] = 0.0
    return new_left, new_right, float(np.sum(sigma[rank:] ** 2))


def _length(sigma: float, previous: float) -> float:
    balanced = float(np.sqrt(sigma))
    return previous if balanced < STALL * previous else balanced
