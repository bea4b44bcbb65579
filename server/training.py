"""Plan a round with a strategy, and merge what the gate let through."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprompt.wire import ARRAYS, CONFIG, Arrays, to_array_record
from server import strategies
from server.chosen_grid import ChosenGrid
from server.replies import to_numpy_record, to_strategy
from server.roster import Site
from server.rules import Dense, Projection, Rule
from server.verdict import Accepted

_NOT_SENT = ("server-round", "proximal-mu")  # Flower's names for what is sent as round and mu


@dataclass(frozen=True)
class Instruction:
    """Hold what every site of a round is told."""

    run: str
    round: int
    seed: int

    def record(self, mu: float = 0.0) -> ConfigRecord:
        """Return the message's config; ``mu`` is FedProx's proximal weight."""
        return ConfigRecord({"run": self.run, "round": self.round, "seed": self.seed, "mu": mu})


def plan(
    strategy: Strategy,
    grid: Grid,
    arrays: Arrays,
    lifted: Dense,
    sites: Iterable[Site],
    instruction: Instruction,
    dtype: str,
) -> dict[int, RecordDict]:
    """Return what to send to each node: the strategy's settings, and the arrays that travel.

    The strategy itself is shown the lifted arrays, because those are what it averages.
    """
    strategies.rebase(strategy)
    view = ChosenGrid([site.node for site in sites], grid.run)
    messages = list(
        strategy.configure_train(
            instruction.round, to_numpy_record(lifted), instruction.record(), view
        )
    )
    wire = to_array_record(arrays, dtype)
    contents: dict[int, RecordDict] = {}  # by id: strategies mostly tell all sites the same
    planned = {}
    for message in messages:
        key = id(message.content)
        if key not in contents:
            contents[key] = RecordDict({ARRAYS: wire, CONFIG: _settings(message)})
        planned[message.metadata.dst_node_id] = contents[key]
    return planned


def merge(
    strategy: Strategy,
    rule: Rule,
    arrays: Arrays,
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
    averaged, _ = strategy.aggregate_train(server_round, to_strategy(updates, messages))
    if averaged is None:
        return Projection(arrays, 0.0)
    dense = {name: array.numpy().astype(np.float64) for name, array in averaged.items()}
    projection = rule.project(dense, arrays)
    weights = [update.weight for update in updates]
    error = projection.truncation_error + rule.merge_error([u.update for u in updates], weights)
    return Projection(as_travelled(projection.arrays, dtype), error)


def as_travelled(arrays: Arrays, dtype: str) -> Arrays:
    """Return the arrays as a site will read them: rounded to the dtype of the wire."""
    return {name: array.astype(dtype).astype(np.float32) for name, array in arrays.items()}


def _settings(message: Message) -> ConfigRecord:
    found = message.content.config_records[CONFIG]
    settings = {key: value for key, value in found.items() if key not in _NOT_SENT}
    return ConfigRecord(settings | {"mu": found.get("proximal-mu", 0.0)})
