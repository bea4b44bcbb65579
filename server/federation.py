"""What the rounds of one run share: the grid, the task, the settings and the sites that joined."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprompt.wire import Arrays
from server.config import ServerConfig
from server.receipts import Receipts
from server.roster import Roster, Site
from server.rules import RULES, Rule
from server.strategies import STRATEGIES
from server.verdict import Asked, Verdict


@dataclass(frozen=True)
class Task:
    """Hold what is trained, who may take part and how a prompt is described in the record."""

    arrays: Arrays
    identity: Mapping[str, str]
    describe: Callable[[Arrays], Mapping[str, float]]  # e.g. its information density
    run: str  # digest of all that must not change between a run and its resumption


@dataclass(frozen=True)
class Federation:
    """Hold the parts that every round uses."""

    grid: Grid
    task: Task
    config: ServerConfig
    rule: Rule
    strategy: Strategy
    roster: Roster
    receipts: Receipts

    def asked(self, sites: Iterable[Site], server_round: int) -> dict[int, Asked]:
        """Return what each site's reply must carry, by node."""
        return {site.node: self.receipts.ask(site, server_round) for site in sites}


def federation(grid: Grid, task: Task, config: ServerConfig) -> Federation:
    """Return a federation that no site has joined yet."""
    return Federation(
        grid,
        task,
        config,
        RULES[config.rule],
        STRATEGIES[config.strategy](config),
        Roster(task.identity),
        Receipts(task.run, task.identity),
    )


def tell(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as it stands in the record."""
    return {
        "site": verdict.site,
        "node": verdict.node,
        "accepted": verdict.accepted,
        "reasons": [str(reason) for reason in verdict.reasons],
        "detail": verdict.detail,
    }
