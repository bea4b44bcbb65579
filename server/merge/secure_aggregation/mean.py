"""Run Flower's SecAgg+ workflow for one try of a round, and return the mean of the sites' changes.

Rounds, checkpoints, quorum and record stay ours.
"""

import logging
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.server import LegacyContext, ServerConfig

from fedprompt.prompt_state import Dense
from fedprompt.secure_sum import Vector, levels, unflatten
from server.gate.verdict import Verdict
from server.merge.secure_aggregation.one_try import OneTry
from server.merge.secure_aggregation.protocol import LEAST_SITES, Protocol
from server.merge.secure_aggregation.workflow import Workflow
from server.rounds.exchange import Traffic
from server.rounds.sampled_grid import ChosenGrid

log = logging.getLogger(__name__)
_ALL_PAIRS = 16  # sites up to which each shares its secrets with every other
_SHARES = 15  # of larger rounds; every site then has 14 neighbours (arXiv 2009.04217)
_SPARE = 1e-9  # relative: float64 sums of numbers within the clip


@dataclass(frozen=True)
class Secured:
    """Hold the mean of the sites' changes and how many it is of, or why there is none."""

    change: Dense | None
    weight: int
    verdicts: list[Verdict]
    traffic: Traffic
    shortfall: str = ""


def secure_mean(protocol: Protocol, lifted: Dense, clip: float) -> Secured:
    """Return the mean of the sites' changes, each of norm ``clip`` at most, without seeing one.

    Parameters
    ----------
    protocol
        A fresh try; of fewer vectors than it needs, or than Flower's threshold, none is unmasked.
    lifted
        The arrays the sites start from, in the space that is averaged.
    clip
        L2 norm the sites cut their changes to.
    """
    sites = len(protocol.contents)
    steps = levels(sites)
    if sites < LEAST_SITES or not steps:
        told = f"secure aggregation takes {LEAST_SITES} to 65535 sites, found {sites}"
        return Secured(None, 0, [], Traffic(0, 0), told)
    shares = sites if sites <= _ALL_PAIRS else _SHARES
    threshold = shares // 2 + 1
    protocol.needed = max(protocol.needed, threshold)
    vector = _run(protocol, Workflow(
        shares, threshold, max_weight=1.0, clipping_range=clip, quantization_range=steps
    ))  # fmt: skip
    return _judged(protocol, vector, lifted, clip)


def _judged(protocol: Protocol, vector: Vector | None, lifted: Dense, clip: float) -> Secured:
    """Return the sum if it may be used: enough vectors came, and it is within the clip."""
    weight, counted = sum(protocol.weights.values()), len(protocol.weights)
    verdicts, traffic = protocol.verdicts(), protocol.traffic
    if counted >= protocol.needed and not weight:
        # all abstain: nothing was unmasked, and nothing is to be
        vector = np.zeros(protocol.expected.entries)
    if vector is None:
        told = (
            f"{counted} of {len(protocol.contents)} masked vectors came, {protocol.needed} needed; "
            f"{weight} hold an update, {LEAST_SITES} needed; none unmasked"
        )
        return Secured(None, 0, verdicts, traffic, told)
    if not np.linalg.norm(vector) <= clip * (1 + _SPARE):
        told = (
            "the sum is not one of clipped updates: a site has broken the protocol, or its shares"
        )
        return Secured(None, 0, verdicts, traffic, told)
    return Secured(unflatten(vector, lifted), weight, verdicts, traffic)


def _run(protocol: Protocol, workflow: Workflow) -> Vector | None:
    carried = ChosenGrid(list(protocol.contents), protocol.grid.run, protocol.carry)
    strategy = OneTry(carried, list(protocol.contents))
    state = RecordDict({"config": ConfigRecord({"current_round": 1}), "parameters": ArrayRecord()})
    context = LegacyContext(Context(1, 0, {}, state, {}), ServerConfig(1), strategy)
    try:
        workflow(carried, context)
    except Exception:  # shares of hostile sites break Flower's arithmetic in many ways
        log.warning("the secure sum broke off", exc_info=True)
        return None
    return strategy.vector
