"""Check every reply before a strategy sees it: who sent it, for which round, and what it holds.

The gate is pure: it takes plain replies and returns what may be merged plus one verdict a site.
A refused reply is dropped and named; it never ends the round (F01-F06, F11-F14, F18).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeGuard

import numpy as np

from fedprompt.wire import Arrays
from server.rules import Dense


class Reason(StrEnum):
    """Why a reply was refused or changed; the code that lands in the round record."""

    NOT_FINITE = "not-finite"  # F01
    MISSING_ARRAY = "missing-array"  # F02
    EXTRA_ARRAY = "extra-array"  # F02
    WRONG_SHAPE = "wrong-shape"  # F02
    WRONG_DTYPE = "wrong-dtype"  # F02
    MALFORMED = "malformed"  # F02: other records or metrics than agreed
    WRONG_SIZE = "wrong-size"  # F03
    OVERSIZED = "oversized"  # F04
    NORM = "norm"  # F05
    BAD_COUNT = "bad-count"  # F06
    STALE = "stale"  # F11: bound to an earlier round
    DUPLICATE = "duplicate"  # F11
    IDENTITY = "identity"  # F12-F14
    ERROR = "error"  # the site's code raised
    TIMEOUT = "timeout"  # F18: no reply by the deadline
    CLIPPED = "clipped"  # accepted, its update shortened (F05)
    CAPPED = "capped"  # accepted, its count cut to the enrolled size (F06)
    ABSTAINED = "abstained"  # accepted, without weight: no examples


NO_STRIKE = frozenset({Reason.TIMEOUT})  # a lost link is no offence
REJECT_BEYOND = 100.0  # an update this many times over the clipping bound is refused, not clipped


@dataclass(frozen=True)
class Asked:
    """Say what a reply of one asked site must carry."""

    site: int
    receipt: int
    enrolled: int  # examples declared when the site joined
    is_stale: Callable[[object], bool]  # whether a receipt is one of this site's earlier rounds


@dataclass(frozen=True)
class Reply:
    """Hold one reply as it came, unpacked but not yet believed."""

    node: int
    refusal: tuple[Reason, str] | None = None  # found wrong while unpacking
    arrays: Arrays | None = None
    count: object = None
    receipt: object = None
    loss: object = None


@dataclass(frozen=True)
class Accepted:
    """Hold one update that may be merged: lifted, clipped, with a believable weight."""

    site: int
    node: int
    update: Dense
    weight: int
    loss: float


@dataclass(frozen=True)
class Verdict:
    """Say what became of one reply."""

    site: int | None  # None: a node that was not asked
    node: int
    accepted: bool
    reasons: tuple[Reason, ...] = ()
    detail: str = ""

    @property
    def strike(self) -> bool:
        """Tell whether the site is to blame."""
        return not self.accepted and not NO_STRIKE.issuperset(self.reasons)


@dataclass(frozen=True)
class Bounds:
    """Hold the limits of an update's norm; 0 switches a limit off."""

    factor: float  # over the median norm of the round's updates
    norm: float


def judge(
    replies: Sequence[Reply],
    asked: Mapping[int, Asked],
    current: Dense,
    lift: Callable[[Arrays], Dense],
    bounds: Bounds,
) -> tuple[list[Accepted], list[Verdict]]:
    """Return the updates that may be merged, by site, and a verdict on every reply.

    Parameters
    ----------
    replies
        In any order; the result does not depend on it, except which of two duplicates counts.
    asked
        What each asked node must answer.
    current
        The lifted arrays the sites started from.
    lift
        The aggregation rule's way into the space that is averaged and measured.
    bounds
        The limits of an update's norm, measured in that space.
    """
    candidates, verdicts = _admit(replies, asked, lift)
    updates, clipped = _clip(candidates, current, bounds)
    changed = {verdict.node: verdict for verdict in clipped}
    merged = [_join(verdict, changed.get(verdict.node)) for verdict in verdicts]
    silent = asked.keys() - {reply.node for reply in replies}
    merged += [refuse(asked[n].site, n, Reason.TIMEOUT, "no reply by the deadline") for n in silent]
    merged.sort(key=lambda v: (v.site is None, v.site, v.node))
    return sorted(updates, key=lambda update: update.site), merged


def check_sender(
    replies: Sequence[Reply], asked: Mapping[int, Asked]
) -> tuple[list[Reply], list[Verdict]]:
    """Return the replies of asked nodes that are well formed and bound to this round, once each."""
    passed: dict[int, Reply] = {}
    verdicts = []
    for reply in replies:
        if reply.node in passed:
            verdict: Verdict | None = refuse(
                asked[reply.node].site, reply.node, Reason.DUPLICATE, "a second reply, not counted"
            )
        else:
            verdict = _sender_verdict(reply, asked.get(reply.node))
        if verdict is None:
            passed[reply.node] = reply
        else:
            verdicts.append(verdict)
    return list(passed.values()), verdicts


def refuse(site: int | None, node: int, reason: Reason, detail: str) -> Verdict:
    """Return the verdict that drops a reply."""
    return Verdict(site, node, False, (reason,), detail)


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether a value is a number of examples: an int, not a bool, not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_finite(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _sender_verdict(reply: Reply, asked: Asked | None) -> Verdict | None:
    if asked is None:
        return refuse(None, reply.node, Reason.IDENTITY, "this node was not asked")
    if reply.refusal:
        return refuse(asked.site, reply.node, *reply.refusal)
    if reply.receipt == asked.receipt:
        return None
    if asked.is_stale(reply.receipt):
        return refuse(asked.site, reply.node, Reason.STALE, "the receipt is of an earlier round")
    detail = "the receipt is bound to another run, site, backbone, class list or version"
    return refuse(asked.site, reply.node, Reason.IDENTITY, detail)


def _admit(
    replies: Sequence[Reply], asked: Mapping[int, Asked], lift: Callable[[Arrays], Dense]
) -> tuple[list[Accepted], list[Verdict]]:
    """Return the updates whose sender, count and values can be believed, and all verdicts."""
    passed, verdicts = check_sender(replies, asked)
    accepted = []
    for reply in passed:
        verdict, update = _believe(reply, asked[reply.node], lift)
        verdicts.append(verdict)
        if update:
            accepted.append(update)
    return accepted, verdicts


def _believe(
    reply: Reply, asked: Asked, lift: Callable[[Arrays], Dense]
) -> tuple[Verdict, Accepted | None]:
    """Return the verdict on a reply's count, loss and arrays, and its update if it has weight."""
    site, node, count = asked.site, reply.node, reply.count
    if not is_count(count):
        detail = f"num-examples is {count!r}, expected a whole number from 0"
        return refuse(site, node, Reason.BAD_COUNT, detail), None
    weight = min(count, asked.enrolled)
    if weight == 0:
        return Verdict(site, node, True, (Reason.ABSTAINED,)), None
    if reply.arrays is None:
        return refuse(site, node, Reason.MISSING_ARRAY, "the reply brings no arrays"), None
    if not is_finite(reply.loss):
        return refuse(site, node, Reason.NOT_FINITE, f"the loss is {reply.loss!r}"), None
    update = Accepted(site, node, lift(reply.arrays), weight, float(reply.loss))
    if count > weight:
        detail = f"num-examples {count} cut to the enrolled {weight}"
        return Verdict(site, node, True, (Reason.CAPPED,), detail), update
    return Verdict(site, node, True), update


def _clip(
    candidates: Sequence[Accepted], current: Dense, bounds: Bounds
) -> tuple[list[Accepted], list[Verdict]]:
    """Shorten updates over the bound, refuse those far over it; return only changed verdicts."""
    norms = [_norm(candidate.update, current) for candidate in candidates]
    bound = _bound(norms, bounds)
    kept, verdicts = [], []
    for candidate, norm in zip(candidates, norms, strict=True):
        found = f"the update's norm is {norm:.3g}, the bound {bound:.3g}"
        if norm <= bound:
            kept.append(candidate)
        elif norm <= REJECT_BEYOND * bound:
            short = _scale(candidate.update, current, bound / norm)
            kept.append(replace(candidate, update=short))
            reasons = (Reason.CLIPPED,)
            verdicts.append(Verdict(candidate.site, candidate.node, True, reasons, found))
        else:
            verdicts.append(refuse(candidate.site, candidate.node, Reason.NORM, found))
    return kept, verdicts


def _bound(norms: Sequence[float], bounds: Bounds) -> float:
    """Return the largest allowed norm; the lower median, so that one of two cannot set it."""
    limits = [bounds.norm] if bounds.norm else []
    moved = sorted(norm for norm in norms if norm > 0)
    if bounds.factor and moved:
        limits.append(bounds.factor * moved[(len(moved) - 1) // 2])
    return min(limits, default=math.inf)


def _norm(update: Dense, current: Dense) -> float:
    return math.hypot(*(float(np.linalg.norm(update[name] - current[name])) for name in current))


def _scale(update: Dense, current: Dense, factor: float) -> Dense:
    return {name: current[name] + factor * (update[name] - current[name]) for name in current}


def _join(verdict: Verdict, changed: Verdict | None) -> Verdict:
    """Merge what the norm check found into an accepted reply's verdict."""
    if changed is None or not verdict.accepted:
        return verdict
    detail = "; ".join(filter(None, (verdict.detail, changed.detail)))
    return replace(changed, reasons=verdict.reasons + changed.reasons, detail=detail)
