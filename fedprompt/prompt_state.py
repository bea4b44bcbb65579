"""The prompt that travels, and the space in which its updates are measured and averaged.

A prompt is a set of named float32 arrays. A matrix X of it may travel as two low-rank factors,
X.A [length rank] and X.B [rank width]. Factors cannot be averaged apart, so updates are compared,
shortened and averaged where every pair is its product: in the lifted prompt, in float64.
"""

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from fedprompt.identity import sha256_arrays

Array = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
Dense = dict[str, npt.NDArray[np.float64]]  # a lifted prompt, or a change of one, by name

Matrix = npt.NDArray[np.float64]  # [length width]; the edge has no jaxtyping

# A left column this much shorter than its predecessor would stall both gradients; see `refactor`.
STALL = 0.1
# The share of a left column outside the others below which it counts as one of them.
PARALLEL = 1e-3
_HALVINGS = 60  # of the interval of an interpolation: below the spacing of doubles


class PromptState(Mapping[str, Array]):
    """Hold the arrays of a prompt; nothing changes them.

    Parameters
    ----------
    arrays
        By name; rounded to float32. Their order is kept: it is the order on the wire.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.floating]] | None = None) -> None:
        self._arrays = {name: np.array(array, np.float32) for name, array in (arrays or {}).items()}
        for array in self._arrays.values():
            array.flags.writeable = False

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __or__(self, other: Mapping[str, npt.NDArray[np.floating]]) -> "PromptState":
        """Return a prompt with the arrays of both; the other's win."""
        return PromptState({**self, **other})

    def __eq__(self, other: object) -> bool:
        """Tell whether names, shapes and all bits are equal."""
        return isinstance(other, PromptState) and self.sha256 == other.sha256

    @property
    def sha256(self) -> str:
        """Return one hash of names, shapes and values, whatever the order of the names."""
        return sha256_arrays(self)

    @property
    def rank(self) -> int:
        """Return the largest rank of a pair of factors; 0 where there is none."""
        return max((self[left(m)].shape[1] for m in pairs(self)), default=0)

    def select(self, names: Collection[str]) -> "PromptState":
        """Return the arrays of some names."""
        return PromptState({name: array for name, array in self.items() if name in names})

    def rounded(self, dtype: str) -> "PromptState":
        """Return the prompt as it is read at the other end of a wire of ``dtype``.

        What is too large for ``dtype`` is infinite there.
        """
        with np.errstate(over="ignore"):
            return PromptState({name: array.astype(dtype) for name, array in self.items()})

    # the space that is averaged

    def lift(self) -> Dense:
        """Return the prompt with each pair X.A, X.B as its product X, in float64, by name.

        Sites of unequal rank meet here without padding: every product is [length width].
        """
        return products(self)

    def project(self, dense: Dense) -> tuple["PromptState", float]:
        """Return arrays of this prompt's names and ranks whose products are nearest to lifted ones.

        Truncated SVD is the nearest matrix of its rank (Eckart and Young, 1936). Beside them: the
        truncation error, in relative Frobenius norm over all matrices together.
        """
        arrays: dict[str, npt.NDArray[np.floating]] = {n: dense[n] for n in self if n in dense}
        lost = total = 0.0
        for m in pairs(self):
            a, b, tail = refactor(dense[m], self[left(m)], self[right(m)])
            arrays |= {left(m): a, right(m): b}
            lost += tail
            total += float(np.sum(dense[m] ** 2))
        error = float(np.sqrt(lost / total)) if total else 0.0
        return PromptState({name: arrays[name] for name in self}), error

    def truncate(self, rank: int) -> "PromptState":
        """Return the prompt with every pair cut to its nearest product of ``rank``.

        0, or a rank that is not smaller, changes nothing.
        """
        return self | self._cut({m: rank for m in pairs(self) if rank})

    def given_to(self, reply: Mapping[str, Array], dtype: str) -> "PromptState":
        """Return the prompt as the sender of ``reply`` began with it: cut to the reply's ranks.

        A site of smaller rank cannot hold the rest, so it has no opinion on it: its update is what
        it returns less this, not less the whole prompt. Cut factors are rounded to ``dtype``, as a
        reply is that travels; a site that learned nothing returns exactly them.
        """
        ranks = {m: reply[left(m)].shape[1] for m in pairs(self)}
        return self | PromptState(self._cut(ranks)).rounded(dtype)

    def unmoved(self, reply: Mapping[str, Array]) -> "PromptState":
        """Return what a site would send instead of ``reply`` had it learned nothing.

        That is what it was sent; an update, which it was not sent, is zero (rule ``fresh-basis``).
        """
        return PromptState({n: self.get(n, np.zeros_like(a)) for n, a in reply.items()})

    def clip(
        self, start: "PromptState", limit: float, frozen: Mapping[str, Array], dtype: str
    ) -> "PromptState":
        """Return this prompt, or a point on the way to it no further than ``limit`` from ``start``.

        The distance is the L2 norm over all lifted arrays, from ``start`` cut to this prompt's
        ranks. Factors are interpolated, A0 + t (A - A0) and B0 + t (B - B0), with the largest t
        that a bisection finds, and measured as they travel, rounded to ``dtype``; so it is at most
        ``limit``, not only about it.

        Parameters
        ----------
        start
            What the server sent; of a larger rank perhaps.
        limit
            0 = any.
        frozen
            What is never sent: an ``X.A`` here belongs to an ``X.B`` of this prompt.
        dtype
            Of the wire, ``float32`` or ``float16``.
        """
        if not limit:
            return self
        bases = {n: a for n, a in frozen.items() if n == left(n[:-2]) and right(n[:-2]) in self}
        begin = start.given_to(self, dtype)
        origin = (begin | bases).lift()

        def fits(state: PromptState) -> bool:
            with np.errstate(all="ignore"):
                length = norm(difference((state.rounded(dtype) | bases).lift(), origin))
            return length <= limit  # never so of NaN

        def at(t: float) -> PromptState:
            far = {n: a.astype(np.float64) - begin[n] for n, a in self.items()}
            with np.errstate(over="ignore"):
                return PromptState({n: (begin[n] + t * far[n]).astype(dtype) for n in far})

        if fits(self):
            return self
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(at(middle)) else (low, middle)
        return at(low)

    def shapes(self, claimed: Shapes | None = None) -> Shapes:
        """Return the shapes of a reply: this prompt's, or of a smaller rank where it claims one."""
        shapes = {name: array.shape for name, array in self.items()}
        for m in pairs(self):
            (length, rank), width = shapes[left(m)], shapes[right(m)][1]
            found = (claimed or {}).get(left(m), ())
            # `true` is no rank
            if len(found) == 2 and type(found[1]) is int and 1 <= found[1] <= rank:
                shapes |= {left(m): (length, found[1]), right(m): (found[1], width)}
        return shapes

    def _cut(self, ranks: Mapping[str, int]) -> dict[str, Array]:
        """Return the factors of the pairs whose rank becomes smaller."""
        cut: dict[str, Array] = {}
        for m, rank in ranks.items():
            a, b = self[left(m)], self[right(m)]
            if rank < a.shape[1]:
                product = a.astype(np.float64) @ b
                cut[left(m)], cut[right(m)], _ = refactor(product, a[:, :rank], b[:rank])
        return cut


# how factors are named, and what becomes of them


def left(matrix: str) -> str:
    """Return the name of a matrix's left factor [length rank]."""
    return f"{matrix}.A"


def right(matrix: str) -> str:
    """Return the name of a matrix's right factor [rank width]."""
    return f"{matrix}.B"


def pairs(names: Collection[str]) -> list[str]:
    """Return the sorted matrices that come as two factors."""
    return sorted(name[:-2] for name in names if name.endswith(".A") and right(name[:-2]) in names)


def products(arrays: Mapping[str, npt.NDArray[np.floating]]) -> Dense:
    """Return arrays with each pair X.A, X.B as its product X, in float64, by name."""
    dense = {m: arrays[left(m)].astype(np.float64) @ arrays[right(m)] for m in pairs(arrays)}
    factors = {name for m in dense for name in (left(m), right(m))}
    dense |= {name: a.astype(np.float64) for name, a in arrays.items() if name not in factors}
    return {name: dense[name] for name in sorted(dense)}


def difference(one: Dense, other: Dense) -> Dense:
    """Return ``one`` less ``other``."""
    return {name: one[name] - other[name] for name in other}


def norm(change: Dense) -> float:
    """Return the L2 norm over all arrays together."""
    return math.hypot(*(float(np.linalg.norm(array)) for array in change.values()))


def toward(origin: Dense, update: Dense, share: float) -> Dense:
    """Return the point that lies a share of the way from ``origin`` to ``update``."""
    return {name: origin[name] + share * (update[name] - origin[name]) for name in origin}


def refactor(matrix: Matrix, left: Array, right: Array) -> tuple[Array, Array, float]:
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


def _beside(placed: Matrix, column: Array) -> Matrix:
    """Return a unit vector orthogonal to the orthogonal columns ``placed``, near ``column``.

    Where ``column`` lies among them it is near the axis that they reach least.
    """
    lengths = np.linalg.norm(placed, axis=0)
    units = placed[:, lengths > 0] / lengths[lengths > 0]
    outside = np.eye(len(placed)) - units @ units.T
    rest: Matrix = outside @ (outside @ column.astype(np.float64))  # twice: exact to rounding
    if np.linalg.norm(rest) <= PARALLEL * np.linalg.norm(column.astype(np.float64)):
        rest = outside @ outside[:, np.argmax(np.linalg.norm(outside, axis=0))]
    length = float(np.linalg.norm(rest))
    return np.divide(rest, length) if length else rest


def _length(sigma: float, previous: float) -> float:
    balanced = float(np.sqrt(sigma))
    return previous if balanced < STALL * previous else balanced
