"""The way back from dense products to low-rank factors (see `fedprompt.dense`)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from fedprompt.dense import Dense, pairs

Arrays = dict[str, npt.NDArray[np.float32]]
Matrix = Float64[np.ndarray, "length width"]
Column = Float64[np.ndarray, " length"]
LeftFactor = Float32[np.ndarray, "length rank"]
RightFactor = Float32[np.ndarray, "rank width"]

# A left column this much shorter than its predecessor would stall both gradients; see `refactor`.
STALL = 0.1
# The share of a left column outside the others below which it counts as one of them.
PARALLEL = 1e-3


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


def shrink(arrays: Mapping[str, npt.NDArray[np.float32]], rank: int) -> Arrays:
    """Return the arrays with every pair X.A, X.B cut to its nearest product of ``rank``.

    0, or a rank that is not smaller, changes nothing.
    """
    cut = dict(arrays)
    for m in pairs(arrays):
        left, right = arrays[f"{m}.A"], arrays[f"{m}.B"]
        if 0 < rank < left.shape[1]:
            product = left.astype(np.float64) @ right
            cut[f"{m}.A"], cut[f"{m}.B"], _ = refactor(product, left[:, :rank], right[:rank])
    return cut


def given_to(
    current: Mapping[str, npt.NDArray[np.float32]],
    reply: Mapping[str, npt.NDArray[np.float32]],
    dtype: str,
) -> Arrays:
    """Return ``current`` as the sender of ``reply`` began with it: cut to the ranks of the reply.

    A site of smaller rank cannot hold the rest, so it has no opinion on it: its update is what it
    returns less this, not less ``current``. Cut factors are rounded to ``dtype``, as a reply is
    that travels; a site that learned nothing returns exactly them.
    """
    given = dict(current)
    for m in pairs(current):
        rank = reply[f"{m}.A"].shape[1]
        if rank < current[f"{m}.A"].shape[1]:
            names = [f"{m}.A", f"{m}.B"]
            cut = shrink({name: current[name] for name in names}, rank)
            given |= {name: cut[name].astype(dtype).astype(np.float32) for name in names}
    return given


def refactor(
    matrix: Matrix, left: LeftFactor, right: RightFactor
) -> tuple[LeftFactor, RightFactor, float]:
    """Return factors of the nearest matrix of ``left``'s rank, and the squared error.

    Both factors carry sqrt(sigma). Two exceptions keep them off the saddle A = B = 0, where both
    gradients vanish. A component without any weight keeps its previous left column, made orthogonal
    to the columns before it but no shorter: a prompt that has not moved keeps its start, and no two
    components learn the same direction. One so light that balancing would shrink the left column
    below a tenth of its predecessor keeps the predecessor's length. Signs are fixed by the largest
    entry of each left vector, so that equal products give equal factors.
    """
    rank = left.shape[1]
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    signs = np.sign(u[np.argmax(np.abs(u), axis=0), np.arange(u.shape[1])])
    u, vt = u * signs, vt * signs[:, None]
    lengths = np.linalg.norm(left.astype(np.float64), axis=0)
    new_left, new_right = left.astype(np.float64), right.astype(np.float64)
    negligible = np.finfo(np.float64).eps * max(matrix.shape) * sigma[0]
    heavy = int(np.sum(sigma[:rank] > negligible))
    for i in range(heavy):
        length = _length(float(sigma[i]), float(lengths[i]))
        new_left[:, i], new_right[i] = u[:, i] * length, vt[i] * (sigma[i] / length)
    for i in range(heavy, rank):
        if heavy:
            new_left[:, i] = _beside(new_left[:, :i], left[:, i]) * lengths[i]
        if lengths[i]:
            new_right[i] = 0.0
    tail = float(np.sum(sigma[rank:] ** 2))
    return new_left.astype(np.float32), new_right.astype(np.float32), tail


def _beside(placed: Matrix, column: LeftFactor) -> Column:
    """Return a unit vector orthogonal to the orthogonal columns ``placed``, near ``column``.

    Where ``column`` lies among them it is near the axis that they reach least.
    """
    lengths = np.linalg.norm(placed, axis=0)
    units = placed[:, lengths > 0] / lengths[lengths > 0]
    outside = np.eye(len(placed)) - units @ units.T
    rest: Column = outside @ (outside @ column.astype(np.float64))  # twice: exact to rounding
    if np.linalg.norm(rest) <= PARALLEL * np.linalg.norm(column.astype(np.float64)):
        rest = outside @ outside[:, np.argmax(np.linalg.norm(outside, axis=0))]
    length = float(np.linalg.norm(rest))
    return np.divide(rest, length) if length else rest


def _length(sigma: float, previous: float) -> float:
    balanced = float(np.sqrt(sigma))
    return previous if balanced < STALL * previous else balanced
