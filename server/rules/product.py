"""Average the dense products A B, then keep the best approximation of rank r."""

import numpy as np
from jaxtyping import Float32, Float64

from fedprompt.wire import Arrays
from server.rules.rule import Dense, Projection, Rule, no_merge_error, pairs

Matrix = Float64[np.ndarray, "length width"]
LeftFactor = Float32[np.ndarray, "length rank"]
RightFactor = Float32[np.ndarray, "rank width"]

# A left column this much shorter than its predecessor would stall both gradients; see `refactor`.
STALL = 0.1


def lift(arrays: Arrays) -> Dense:
    """Replace each pair of factors by its product; other arrays pass.

    Sites of unequal rank meet here without padding: every product is [length width].
    """
    paired = pairs(arrays)
    dense = {m: arrays[f"{m}.A"].astype(np.float64) @ arrays[f"{m}.B"] for m in paired}
    factors = {f"{m}.{side}" for m in paired for side in "AB"}
    dense |= {name: a.astype(np.float64) for name, a in arrays.items() if name not in factors}
    return {name: dense[name] for name in sorted(dense)}


def project(averaged: Dense, current: Arrays) -> Projection:
    """Return factors of ``current``'s rank whose products are nearest to the averaged ones.

    Truncated SVD is the nearest matrix of its rank (Eckart and Young, 1936); the truncation error
    is taken over all matrices together.
    """
    arrays = {name: averaged[name].astype(np.float32) for name in current if name in averaged}
    lost = total = 0.0
    for m in pairs(current):
        left, right, tail = refactor(averaged[m], current[f"{m}.A"], current[f"{m}.B"])
        arrays |= {f"{m}.A": left, f"{m}.B": right}
        lost += tail
        total += float(np.sum(averaged[m] ** 2))
    error = float(np.sqrt(lost / total)) if total else 0.0
    return Projection({name: arrays[name] for name in current}, error)


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


RULE = Rule(lift, project, no_merge_error, mixed_ranks=True)
