"""Orthonormal columns that everybody can compute: where the left factors of prompts begin."""

import numpy as np
from jaxtyping import Float32


def columns(length: int, rank: int, turn: int = 0) -> Float32[np.ndarray, "length rank"]:
    """Return ``rank`` orthonormal columns; each turn those that follow, round and round.

    With length = 2^a m, m odd, the basis is the Kronecker product of Hadamard's (Sylvester) and the
    discrete Hartley one, h_k[i] = (cos(2 pi i k / m) + sin(2 pi i k / m)) / sqrt(m). So where the
    length is a power of two all entries are of one size, and every token moves as far as the
    others. All columns but the constant one, which comes last, have mixed signs: tokens part
    instead of moving together.

    Raises
    ------
    ValueError
        There are fewer than ``rank`` columns.
    """
    if not 0 < rank <= length:
        raise ValueError(f"a basis of {length} columns holds 1 to {length}, asked are {rank}")
    odd = length // (length & -length)
    chosen = (turn * rank + 1 + np.arange(rank)) % length
    row = np.arange(length)[:, None]
    negative = np.bitwise_count((row // odd) & (chosen // odd)) % 2
    angle = 2 * np.pi * ((row % odd) * (chosen % odd) % odd) / odd
    values = (1 - 2.0 * negative) * (np.cos(angle) + np.sin(angle)) / np.sqrt(length)
    return np.asarray(values, np.float32)
