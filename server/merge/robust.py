"""Merge what hostile sites may have spoilt: Flower's robust strategies, told how many to expect.

They see the lifted arrays, like every strategy: a median of factors would be no prompt at all.
Every reply counts once in them, because a site declares its number of images itself.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg, MultiKrum

from fedprompt.errors import ConfigError
from fedprompt.settings.server import ServerConfig
from server.merge.bulyan import bulyan

_log = logging.getLogger("fedprompt.rounds")

Merged = tuple[ArrayRecord | None, MetricRecord | None]

# replies a round needs when f of them may be hostile
LEAST: dict[str, Callable[[int], int]] = {
    "fedmedian": lambda f: 2 * f + 1,  # arXiv 1803.01498
    "fedtrimmedavg": lambda f: 2 * f + 1,  # the same
    "krum": lambda f: 2 * f + 3,  # arXiv 1703.02757
    "multikrum": lambda f: 2 * f + 3,  # the same
    "bulyan": lambda f: 4 * f + 3,  # arXiv 1802.07927
}


class TrimmedMean(FedTrimmedAvg):
    """Leave out the f smallest and f largest values of each coordinate and average the others.

    Flower's takes a fixed share b and cuts int(b n) values: b = f / n must follow the replies of a
    round, and 29 / 100 * 100 rounds down to 28.
    """

    def __init__(self, byzantine: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.byzantine = byzantine

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Merged:
        """Merge the replies of one round."""
        replies = list(replies)
        self.beta = (self.byzantine + 0.25) / len(replies)  # a quarter more, so int() gives f
        return super().aggregate_train(server_round, replies)


class BestOfKrum(MultiKrum):
    """Average the n - f - 2 updates that lie closest to their neighbours (arXiv 1703.02757).

    Flower's takes a fixed number, one by default; so many as arXiv 1905.04374 takes follow n, which
    differs from round to round.
    """

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Merged:
        """Merge the replies of one round."""
        replies = list(replies)
        self.num_nodes_to_select = len(replies) - self.num_malicious_nodes - 2
        return super().aggregate_train(server_round, replies)


class Bulyan(FedAvg):
    """Merge by Bulyan as published (`server.merge.bulyan`).

    Flower's scores the replies once, where the published rule scores those left after each choice;
    and it collects garbage for every chosen reply, which takes seconds beside a loaded model.
    """

    def __init__(self, byzantine: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.byzantine = byzantine

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Merged:  # noqa: ARG002
        """Merge the replies of one round."""
        records = [next(iter(reply.content.array_records.values())) for reply in replies]
        found = [{name: array.numpy() for name, array in record.items()} for record in records]
        flat = [np.concatenate([a.ravel() for a in arrays.values()]) for arrays in found]
        merged, start = bulyan(np.stack(flat), self.byzantine), 0
        record = ArrayRecord()
        for name, array in found[0].items():
            record[name] = Array(merged[start : start + array.size].reshape(array.shape))
            start += array.size
        return record, MetricRecord()


def check_sites(config: ServerConfig, joined: int, asked: int) -> None:
    """Refuse a federation too small for the hostile sites it must bear.

    Raises
    ------
    ConfigError
        Says how many replies the strategy needs.
    """
    if shortfall := too_few(config, asked):
        raise ConfigError(
            f"{shortfall}; {asked} of {joined} joined sites are asked a round. Let more sites "
            "join (server.min_sites), raise server.fraction, or lower server.byzantine"
        )
    if config.strategy in LEAST and too_few(config, asked - 1):
        _log.warning(
            "server.strategy = %s with server.byzantine = %d needs all %d sites that are asked a "
            "round: one that is lost or refused ends it; let more sites join",
            config.strategy, config.byzantine, asked,
        )  # fmt: skip


def too_few(config: ServerConfig, replies: int) -> str:
    """Return why a strategy cannot merge so few replies; empty if it can."""
    least = LEAST[config.strategy](config.byzantine) if config.strategy in LEAST else 1
    if replies >= least:
        return ""
    return (
        f"server.strategy = {config.strategy} with server.byzantine = {config.byzantine} needs "
        f"{least} updates, found {replies}"
    )
