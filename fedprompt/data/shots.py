"""Take some images of each class: few-shot training sets, held-out shares, smaller copies.

Every choice depends on the seed and on one class alone, so k shots contain k - 1 shots, and a new
class does not move the others.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_FEW_SHOT, _HOLD_OUT, _STRATIFIED = range(3)  # streams of random numbers, one a purpose


def few_shot(labels: Indices, shots: int, seed: int) -> Indices:
    """Take ``shots`` images of each class, or all of a class that has fewer.

    Source: the few-shot setting of CoOp (Zhou et al. 2022), `generate_fewshot_dataset`.

    Returns
    -------
    int64 indices into ``labels``, ascending.
    """
    return _take(labels, lambda counts: np.minimum(counts, shots), seed, _FEW_SHOT)


def stratified(labels: Indices, limit: int, seed: int) -> Indices:
    """Take ``limit`` images, each class in its share of the whole; all when there are fewer.

    Returns
    -------
    int64 indices into ``labels``, ascending.
    """
    total = min(limit, len(labels))
    return _take(labels, lambda counts: _apportion(counts, total, counts), seed, _STRATIFIED)


def hold_out(labels: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Split into images to learn from and a share held out, each class in proportion.

    The last image of a class always stays to learn from.

    Returns
    -------
    Two arrays of int64 indices into ``labels``, ascending, disjoint and complete.
    """
    total = round(share * len(labels))
    spare = np.maximum(np.bincount(labels) - 1, 0) if len(labels) else np.zeros(0, np.int64)
    held = _take(labels, lambda counts: _apportion(counts, total, spare), seed, _HOLD_OUT)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), held), held


def _take(labels: Indices, quota: Callable[[Indices], Indices], seed: int, stream: int) -> Indices:
    counts = np.bincount(labels).astype(np.int64)
    chosen = [np.zeros(0, np.int64)]
    for label, number in enumerate(quota(counts)):
        members = np.flatnonzero(labels == label)
        random = np.random.default_rng([seed, stream, label])
        chosen.append(random.permutation(members)[:number])
    indices: Indices = np.sort(np.concatenate(chosen))
    return indices


def _apportion(counts: Indices, total: int, most: Indices) -> Indices:
    """Divide ``total`` in proportion to ``counts`` by largest remainders, none above ``most``."""
    exact = counts * (total / max(int(counts.sum()), 1))
    numbers: Indices = np.minimum(np.floor(exact).astype(np.int64), most)
    by_remainder = np.argsort(numbers - exact, kind="stable")
    open_classes = by_remainder[(numbers < most)[by_remainder]]
    numbers[open_classes[: max(total - int(numbers.sum()), 0)]] += 1
    return numbers
