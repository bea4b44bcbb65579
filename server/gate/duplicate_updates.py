"""Notice updates that are no work of their own: copies of another site's, or none at all (F10)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedprompt.identity import sha256_arrays
from server.gate.verdict import Accepted, Reason, Verdict, refuse
from server.merge.rules import Dense

MUCH = 0.25  # of a round's weight


def drop_copies(
    candidates: Sequence[Accepted], current: Dense
) -> tuple[list[Accepted], list[Verdict]]:
    """Keep one of each update that arrived from several sites; return only changed verdicts.

    Sites differ in their images, their seed and the order of their batches, so two equal updates
    are one site's work under two names. They count once, for the lowest site number. Nobody gets a
    strike: who copied from whom cannot be told from the arrays, and a strike would let a copyist
    drive the site that it copies into quarantine. A copy with a little noise is not noticed here;
    the record's cosine shows it.

    An update that changes nothing (a free rider's) is named and merged: it is what an honest site
    sends whose steps round to zero. How far it holds the others back, `name_holding` tells.
    """
    first: dict[str, int] = {}
    kept, verdicts = [], []
    for candidate in sorted(candidates, key=lambda c: c.site):
        if all(np.array_equal(candidate.update[name], current[name]) for name in current):
            detail = "the arrays came back as they were sent"
            verdicts.append(
                Verdict(candidate.site, candidate.node, True, (Reason.UNCHANGED,), detail)
            )
            kept.append(candidate)
            continue
        owner = first.setdefault(sha256_arrays(candidate.update), candidate.site)
        if owner == candidate.site:
            kept.append(candidate)
        else:
            detail = f"the update is site {owner}'s, bit for bit"
            verdicts.append(refuse(candidate.site, candidate.node, Reason.COPIED, detail))
    return kept, verdicts


def name_holding(verdicts: Sequence[Verdict], updates: Sequence[Accepted]) -> list[Verdict]:
    """Return the verdicts, with those named whose unchanged update weighs much in the merge.

    ``updates`` have the weights that they are merged with.
    """
    total = sum(update.weight for update in updates)
    shares = {update.node: update.weight / total for update in updates}
    return [
        replace(
            verdict,
            reasons=(*verdict.reasons, Reason.HOLDING),
            detail=f"{verdict.detail}; with {shares[verdict.node]:.0%} of the round's weight",
        )
        if Reason.UNCHANGED in verdict.reasons and shares.get(verdict.node, 0) > MUCH
        else verdict
        for verdict in verdicts
    ]
