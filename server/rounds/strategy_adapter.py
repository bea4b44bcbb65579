"""Plan a round with a strategy, and merge what the gate let through."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState, difference, norm, products
from fedprompt.wire import ARRAYS, CONFIG, nonce
from server.gate.limits import largest_number, merged_limit
from server.gate.replies import to_numpy_record, to_strategy
from server.gate.verdict import Accepted
from server.merge import strategies
from server.merge.rules import Dense, Projection, Rule
from server.rounds.sampled_grid import ChosenGrid

_ROUNDING = 1e-9  # a change that is shorter is none
_NOT_SENT = ("server-round", "proximal-mu")  # Flower's names for what is sent as round and mu


@dataclass(frozen=True)
class Instruction:
    """Hold what every site of a round is told."""

    run: str
    round: int
    seed: int
    sites: int  # asked together; a site's policy may want a crowd

    def record(self, mu: float = 0.0) -> ConfigRecord:
        """Return the message's config; ``mu`` is FedProx's proximal weight."""
        return ConfigRecord({**vars(self), "mu": mu, "nonce": nonce()})


def plan(
    strategy: Strategy,
    grid: Grid,
    lifted: Dense,
    wire: Mapping[int, ArrayRecord],
    instruction: Instruction,
) -> dict[int, RecordDict]:
    """Return what to send to each node: the strategy's settings, and its arrays of ``wire``.

    The strategy itself is shown the lifted arrays, because those are what it averages.
    """
    strategies.rebase(strategy)
    view = ChosenGrid(list(wire), grid.run)
    messages = list(
        strategy.configure_train(
            instruction.round, to_numpy_record(lifted), instruction.record(), view
        )
    )
    # by ids: strategies mostly tell all sites the same
    contents: dict[tuple[int, int], RecordDict] = {}
    planned = {}
    for message in messages:
        node = message.metadata.dst_node_id
        key = (id(message.content), id(wire[node]))
        if key not in contents:
            contents[key] = RecordDict({ARRAYS: wire[node], CONFIG: _settings(message)})
        planned[node] = contents[key]
    return planned


def merge(
    strategy: Strategy,
    rule: Rule,
    arrays: PromptState,
    updates: Sequence[Accepted],
    messages: Mapping[int, Message],
    server_round: int,
    dtype: str,
) -> Projection:
    """Return the merged arrays as they will travel, and what merging lost.

    With nothing to merge (every site abstained) the arrays stay as they are.
    """
    if not updates:
        return Projection(arrays, 0.0)
    replies = to_strategy(updates, messages)
    merged = _step(strategy, rule, arrays, replies, server_round, dtype)
    weights = [update.weight for update in updates]
    lost = rule.merge_error([u.update for u in updates], weights)
    if not lost:
        return merged
    share = np.asarray(weights, np.float64) / np.sum(weights)
    exact = [products(update.update) for update in updates]
    mean = {n: np.tensordot(share, [update[n] for update in exact], 1) for n in exact[0]}
    longer = _relative(mean, difference(mean, arrays.lift()))
    return Projection(
        merged.arrays, merged.truncation_error + lost, merged.truncation_of_change + lost * longer
    )


def merge_mean(
    strategy: Strategy, rule: Rule, arrays: PromptState, mean: Dense, server_round: int, dtype: str
) -> Projection:
    """Return the merged arrays where the strategy may see the sites' average only.

    What merging lost is then what the projection lost: the sites' own updates are not looked at.
    """
    nobody = 0
    reply = Message(RecordDict(), nobody, "train")
    alone = Accepted(nobody, nobody, mean, weight=1, loss=None)
    return _step(strategy, rule, arrays, to_strategy([alone], {nobody: reply}), server_round, dtype)


def _step(
    strategy: Strategy,
    rule: Rule,
    arrays: PromptState,
    replies: list[Message],
    server_round: int,
    dtype: str,
) -> Projection:
    averaged, _ = strategy.aggregate_train(server_round, replies)
    if averaged is None:
        return Projection(arrays, 0.0)
    limit = merged_limit(rule.lift(arrays))  # an optimiser may go beyond what it averages
    dense = {
        name: np.clip(array.numpy().astype(np.float64), -limit, limit)
        for name, array in averaged.items()
    }
    projection = rule.project(dense, arrays)
    lost = difference(dense, rule.lift(projection.arrays)) if projection.truncation_error else {}
    of_change = _relative(lost, difference(dense, rule.lift(arrays)))
    travelling = as_travelled(projection.arrays, dtype)
    return Projection(travelling, projection.truncation_error, of_change)


def _relative(part: Dense, whole: Dense) -> float:
    """Return the Frobenius norm of one over the other's; 0 where that is rounding."""
    length = norm(whole)
    return norm(part) / length if _ROUNDING < length < math.inf else 0.0


def as_travelled(arrays: PromptState, dtype: str) -> PromptState:
    """Return the arrays as a site will read them: rounded to the dtype of the wire.

    Raises
    ------
    PromptError
        A number is not finite there; nothing of it may be committed.
    """
    travelled = arrays.rounded(dtype)
    for name, array in travelled.items():
        if not np.isfinite(array).all():
            raise PromptError(
                f"{name} of the server's prompt is not finite in {dtype}: its largest number is "
                f"{largest_number({name: arrays[name]}):.3g}, {dtype} holds "
                f"{np.finfo(dtype).max:.3g}; set server.dtype = float32, or less noise"
            )
    return travelled


def _settings(message: Message) -> ConfigRecord:
    found = message.content.config_records[CONFIG]
    settings = {key: value for key, value in found.items() if key not in _NOT_SENT}
    return ConfigRecord(settings | {"mu": found.get("proximal-mu", 0.0)})
