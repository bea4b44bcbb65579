"""Check every reply before a strategy sees it: who sent it, for which round, and what it holds.

The gate is pure: it takes plain replies and returns what may be merged plus one verdict a site.
A refused reply is dropped and named; it never ends the round (F01-F06, F10-F14, F18).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from fedprompt.prompt_state import PromptState
from server.gate.duplicate_updates import drop_copies
from server.gate.limits import (
    LARGEST_LOSS,
    MOST_MEDIANS,
    is_loss,
    largest_number,
    update_limit,
    weights,
)
from server.gate.norms import Bounds, clip
from server.gate.verdict import Accepted, Asked, Reason, Reply, Verdict, refuse
from server.merge.rules import Dense
from server.run_folder import run_status


def judge(
    replies: Sequence[Reply],
    asked: Mapping[int, Asked],
    current: Dense,
    lift: Callable[[PromptState], Dense],
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
        Takes a reply's arrays to the space that is averaged and measured: ``current``, moved by
        what the site changed of it.
    bounds
        The limits of an update's norm, measured in that space.
    """
    candidates, verdicts = _admit(replies, asked, lift, update_limit(current))
    own, copies = drop_copies(candidates, current)
    short, clipped = clip(own, current, bounds)
    updates, weighed = _weigh(short, asked)
    merged = verdicts
    over = {verdict.node for verdict in verdicts if Reason.CAPPED in verdict.reasons}
    # who says more than it was enrolled with is told that, whatever else its count is
    for step in (copies, clipped, [v for v in weighed if v.node not in over]):
        changed = {verdict.node: verdict for verdict in step}
        merged = [_join(verdict, changed.get(verdict.node)) for verdict in merged]
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


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether a value is a number of examples: an int, not a bool, not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_finite(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def loss_fault(loss: object) -> tuple[Reason, str]:
    """Return why a value is no mean loss (`server.limits.is_loss`)."""
    if is_finite(loss):
        detail = f"the loss is {loss:.3g}, expected 0 to {LARGEST_LOSS:,.0f} nats"
        return Reason.OUT_OF_RANGE, detail
    return Reason.NOT_FINITE, f"the loss is {loss!r}"


def capped(asked: Asked, node: int, count: int) -> Verdict:
    """Return the verdict on a site that speaks for more images than it was enrolled with."""
    detail = f"num-examples {count} cut to the enrolled {asked.enrolled}"
    return Verdict(asked.site, node, True, (Reason.CAPPED,), detail)


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
    replies: Sequence[Reply],
    asked: Mapping[int, Asked],
    lift: Callable[[PromptState], Dense],
    limit: float,
) -> tuple[list[Accepted], list[Verdict]]:
    """Return the updates whose sender, count and values can be believed, and all verdicts."""
    passed, verdicts = check_sender(replies, asked)
    accepted = []
    for reply in passed:
        with run_status.blaming(asked[reply.node].site):
            verdict, update = _believe(reply, asked[reply.node], lift, limit)
        verdicts.append(verdict)
        if update:
            accepted.append(update)
    return accepted, verdicts


def _believe(
    reply: Reply, asked: Asked, lift: Callable[[PromptState], Dense], limit: float
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
    if reply.loss is not None and not is_loss(reply.loss):
        return refuse(site, node, *loss_fault(reply.loss)), None
    lifted = lift(reply.arrays)
    if not (largest := largest_number(lifted)) <= limit:
        detail = f"the update's largest number is {largest:.3g}, expected {limit:,.0f} at most"
        return refuse(site, node, Reason.NORM, detail), None
    loss = None if reply.loss is None else float(reply.loss)
    update = Accepted(site, node, lifted, weight, loss)
    if count > weight:
        return capped(asked, node, count), update
    return Verdict(site, node, True), update


def _weigh(
    updates: Sequence[Accepted], asked: Mapping[int, Asked]
) -> tuple[list[Accepted], list[Verdict]]:
    """Cut the weights that are a site's own word; return only changed verdicts."""
    agreed = {site.site for site in asked.values() if site.agreed}
    found = weights({update.site: update.weight for update in updates}, agreed)
    verdicts = [
        Verdict(u.site, u.node, True, (Reason.UNAGREED,), _no_more(u.weight, found[u.site]))
        for u in updates
        if found[u.site] < u.weight
    ]
    return [replace(update, weight=found[update.site]) for update in updates], verdicts


def _no_more(count: int, weight: int) -> str:
    told = f"it says {count} images, none were agreed; weighs {weight}"
    return f"{told}, {MOST_MEDIANS} times the median"


def _join(verdict: Verdict, changed: Verdict | None) -> Verdict:
    """Merge what copies and norms showed into an accepted reply's verdict."""
    if changed is None or not verdict.accepted:
        return verdict
    detail = "; ".join(filter(None, (verdict.detail, changed.detail)))
    return replace(changed, reasons=verdict.reasons + changed.reasons, detail=detail)
