"""Keep an update no longer than a site allows, measured in the dense prompt."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedprompt.factors import given_to
from fedprompt.prompts.method import Arrays

_HALVINGS = 60  # of the interval of the interpolation: below the spacing of doubles
_Dense = npt.NDArray[np.float64]


def shorten(trained: Arrays, start: Arrays, frozen: Arrays, limit: float, dtype: str) -> Arrays:
    """Return ``trained``, or a point on the way to it whose update is no longer than ``limit``.

    The update of a factor pair is A B - A0 B0, L2 over all prompts, with A0 and B0 of the site's
    own rank. Factors are interpolated, A0 + t (A - A0) and B0 + t (B - B0), with the largest t that
    a bisection finds, and measured as they travel, rounded to ``dtype``; so the norm is at most
    ``limit``, not only about it.

    Parameters
    ----------
    trained
        What the site learned; of a smaller rank than ``start`` perhaps.
    start
        What the server sent.
    frozen
        What is never sent: an ``X.A`` here belongs to a trained ``X.B``.
    limit
        Largest L2 norm; 0 = any.
    dtype
        Of the wire, ``float32`` or ``float16``.
    """
    if not limit:
        return trained
    base = given_to(start, trained, dtype)
    origin = dense(base, frozen)
    if _distance(_travelled(trained, dtype), origin, frozen) <= limit:
        return trained

    def at(t: float) -> Arrays:
        mixed = {n: base[n] + t * (a.astype(np.float64) - base[n]) for n, a in trained.items()}
        return _travelled(mixed, dtype)

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _distance(at(middle), origin, frozen) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return at(low)


def dense(arrays: Arrays, frozen: Arrays) -> dict[str, _Dense]:
    """Return the prompt matrices: every pair X.A, X.B multiplied out, others as they are."""
    full: dict[str, _Dense] = {}
    for name, array in arrays.items():
        stem, _, factor = name.rpartition(".")
        if factor == "B" and (a := arrays.get(f"{stem}.A", frozen.get(f"{stem}.A"))) is not None:
            full[stem] = a.astype(np.float64) @ array.astype(np.float64)
        elif not (factor == "A" and f"{stem}.B" in arrays):
            full[name] = array.astype(np.float64)
    return full


def _distance(arrays: Arrays, origin: Mapping[str, _Dense], frozen: Arrays) -> float:
    """Return the L2 norm of an update; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        here = dense(arrays, frozen)
        norm = float(np.sqrt(sum(np.sum((here[name] - origin[name]) ** 2) for name in origin)))
    return norm if np.isfinite(norm) else np.inf


def _travelled(arrays: Mapping[str, npt.NDArray[np.floating]], dtype: str) -> Arrays:
    with np.errstate(over="ignore"):
        return {name: array.astype(dtype).astype(np.float32) for name, array in arrays.items()}
