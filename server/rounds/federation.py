"""What the rounds of one run share: the grid, the task, the settings and the sites that joined."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedprompt.prompt_state import PromptState
from fedprompt.settings.server import ServerConfig
from server.gate.receipts import Receipts
from server.gate.verdict import Asked
from server.joining.admission import Site
from server.joining.enrolment import enrolments
from server.joining.roster import Roster
from server.merge.domains import Domains
from server.merge.privacy.mechanism import Mechanism
from server.merge.rules import RULES, Rule
from server.merge.strategies import STRATEGIES


class Description(NamedTuple):
    """Describe a prompt in the record: its information density, and the rank of its change."""

    information_density: float
    change_rank: int | None = None


@dataclass(frozen=True)
class Task:
    """Hold what is trained, who may take part and how a prompt is described in the record."""

    arrays: PromptState
    identity: Mapping[str, str]
    describe: Callable[[PromptState], Description]
    run: str  # digest of all that must not change between a run and its resumption
    asks_start: bool = False  # the sites' centres, not ``arrays``, are what the prompt starts from
    domains: Sequence[str] = ()  # whose prompts are kept apart (ADAPT)
    averaged: bool = False  # the run ends in an average of its rounds' prompts
    # names and shapes a site returns; none: as arrays
    reply: PromptState = field(default_factory=PromptState)
    images: Mapping[int, int] = field(default_factory=dict)  # of each simulated site; else empty


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
    domains: Domains
    mechanism: Mechanism | None = None  # of differential privacy

    def unmoved(self, arrays: PromptState) -> PromptState:
        """Return what a site that learned nothing returns."""
        return arrays.unmoved(self.task.reply or arrays)

    def asked(self, sites: Iterable[Site], server_round: int) -> dict[int, Asked]:
        """Return what each site's reply must carry, by node."""
        return {site.node: self.receipts.ask(site, server_round) for site in sites}


def federation(
    grid: Grid, task: Task, config: ServerConfig, mechanism: Mechanism | None = None
) -> Federation:
    """Return a federation that no site has joined yet."""
    rule = RULES[config.rule]
    return Federation(
        grid,
        task,
        config,
        rule,
        STRATEGIES[config.strategy](config),
        Roster(
            task.identity,
            partial(enrolments, Path(config.sites)) if config.sites else None,
            domains=task.domains,
            images=task.images,
        ),
        Receipts(task.run, task.identity),
        Domains(task.domains, rule),
        mechanism,
    )
