"""One try of a round: ask the sampled sites, judge their replies, merge what passed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedprompt.wire import Arrays
from server.exchange import Traffic, exchange
from server.federation import Federation, tell
from server.gate import judge
from server.norms import Bounds
from server.replies import read_train
from server.roster import Site
from server.rules import Projection
from server.training import Instruction, merge, plan
from server.verdict import Accepted, Reason, Verdict


@dataclass(frozen=True)
class Attempt:
    """Hold what a try gave: the merged arrays, or None below quorum."""

    sites: list[Site]
    verdicts: list[Verdict]
    updates: Sequence[Accepted]
    traffic: Traffic
    merged: Projection | None

    @property
    def loss(self) -> float | None:
        """Return the sites' mean training loss, weighted by their examples."""
        total = sum(update.weight for update in self.updates)
        return sum(u.weight * u.loss for u in self.updates) / total if total else None


def attempt(
    federation: Federation,
    arrays: Arrays,
    server_round: int,
    number: int,
    on_reply: Callable[[int], None],
) -> Attempt:
    """Ask the round's sites once; the sample depends on seed, round and number only."""
    f, c = federation, federation.config
    lifted = f.rule.lift(arrays)
    sites = f.roster.sample(c.fraction, f"{c.seed}:{server_round}:{number}")
    instruction = Instruction(f.task.run, server_round, c.seed)
    contents = plan(f.strategy, f.grid, arrays, lifted, sites, instruction, c.dtype)
    answers, traffic = exchange(f.grid, contents, "train", c.deadline, on_reply)
    replies = [read_train(answer, arrays, c.dtype, f.rule.mixed_ranks) for answer in answers]
    bounds = Bounds(c.clip_factor, c.clip_norm)
    asked = f.asked(sites, server_round)
    updates, verdicts = judge(replies, asked, lifted, f.rule.lift, bounds)
    passed = sum(verdict.accepted for verdict in verdicts)
    if passed < max(1, math.ceil(c.quorum * len(sites))):
        return Attempt(sites, verdicts, updates, traffic, None)
    messages = {answer.node: answer.message for answer in answers}
    merged = merge(f.strategy, f.rule, arrays, updates, messages, server_round, c.dtype)
    return Attempt(sites, verdicts, updates, traffic, merged)


def line(found: Attempt, merged: Projection) -> dict[str, Any]:
    """Return what the record says of a try that reached its quorum."""
    return {
        "asked": [site.partition for site in found.sites],
        "answered": [v.site for v in found.verdicts if Reason.TIMEOUT not in v.reasons],
        "accepted": [verdict.site for verdict in found.verdicts if verdict.accepted],
        "verdicts": [tell(verdict) for verdict in found.verdicts if verdict.reasons],
        "loss": found.loss,
        "truncation_error": merged.truncation_error,
        "bytes_up": found.traffic.up,
        "bytes_down": found.traffic.down,
    }


def complaint(found: Attempt) -> str:
    """Return what was wrong with the replies of a try below quorum, in one line."""
    refused = [verdict for verdict in found.verdicts if not verdict.accepted]
    told = "; ".join(f"site {v.site}: {', '.join(v.reasons)} ({v.detail})" for v in refused[:10])
    more = " ..." if refused[10:] else ""
    return f"{len(refused)} of {len(found.sites)} replies refused, below quorum: {told}{more}"
