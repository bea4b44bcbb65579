"""Bound the norm of updates (F05): shorten those over the bound, refuse those far over it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedprompt.prompt_state import difference, norm, toward
from server.gate.verdict import Accepted, Reason, Verdict, refuse
from server.merge.rules import Dense

REJECT_BEYOND = 100.0  # an update this many times over the bound is refused, not clipped


@dataclass(frozen=True)
class Bounds:
    """Hold the limits of an update's norm; 0 switches a limit off."""

    factor: float  # over the median norm of the round's updates
    norm: float


def clip(
    candidates: Sequence[Accepted], current: Dense, bounds: Bounds
) -> tuple[list[Accepted], list[Verdict]]:
    """Shorten updates over the bound, refuse those far over it; return only changed verdicts."""
    norms = [norm(difference(candidate.update, current)) for candidate in candidates]
    bound = _bound(norms, bounds)
    kept, verdicts = [], []
    for candidate, length in zip(candidates, norms, strict=True):
        found = f"the update's norm is {length:.3g}, the bound {bound:.3g}"
        if length <= bound:
            kept.append(candidate)
        elif length <= REJECT_BEYOND * bound:
            short = toward(current, candidate.update, bound / length)
            kept.append(replace(candidate, update=short))
            reasons = (Reason.CLIPPED,)
            verdicts.append(Verdict(candidate.site, candidate.node, True, reasons, found))
        else:
            verdicts.append(refuse(candidate.site, candidate.node, Reason.NORM, found))
    return kept, verdicts


def _bound(norms: Sequence[float], bounds: Bounds) -> float:
    """Return the largest allowed norm; the lower median, so that one of two cannot set it."""
    limits = [bounds.norm] if bounds.norm else []
    moved = sorted(length for length in norms if length > 0)
    if bounds.factor and moved:
        limits.append(bounds.factor * moved[(len(moved) - 1) // 2])
    return min(limits, default=math.inf)
