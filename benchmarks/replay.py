"""Compute a finished run again from its record, in one process in which nothing is killed.

What a site sends depends on the prompt it got, the seed, the round and the site alone; what the
server makes of it, on the replies it accepted. So the record says enough to compute each round
anew, and the SHA-256 of each prompt must be the record's, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.deployment import Deployment
from client.deployment.policy import Policy
from client.site import Site
from fedprompt.prompt_state import PromptState
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig
from server.gate.judge import judge
from server.gate.norms import Bounds
from server.gate.receipts import Receipts
from server.gate.verdict import Reply
from server.joining.admission import Site as Joined
from server.merge.rules import RULES
from server.merge.strategies import STRATEGIES
from server.rounds.attempt import weigh
from server.rounds.strategy_adapter import as_travelled, merge
from server.rounds.task_builder import Tuning


class Replay:
    """Hold what the rounds of a deployment's run are computed from.

    Parameters
    ----------
    deployment
        Its run was begun.
    """

    def __init__(self, deployment: Deployment) -> None:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1  # of messages
        self._settings = RunFolder(deployment.server.run).settings()
        tuning = Tuning(RunConfig.parse(self._settings))
        self._config, self._task = tuning.server, tuning.task()
        self._sites = deployment.load(self._settings)
        self._norms = [Policy.read(site.policy).max_norm for site in deployment.sites]
        self._strategy, self._rule = (
            STRATEGIES[self._config.strategy](self._config),
            RULES[self._config.rule],
        )
        self._receipts = Receipts(self._task.run, self._task.identity)

    def first_difference(self, records: Sequence[RoundRecord]) -> int | None:
        """Return the first round whose prompt is another than the record's; None if all agree.

        Parameters
        ----------
        records
            From round 0.
        """
        arrays = as_travelled(self._task.arrays, self._config.dtype)
        for record in records:
            if record.round:
                arrays = self.merged(arrays, record.round, record.accepted)
            if arrays.sha256 != record.prompt:
                return record.round
        return None

    def merged(
        self, arrays: PromptState, server_round: int, accepted: Sequence[int]
    ) -> PromptState:
        """Return what a round makes of ``arrays`` with the replies of some sites."""
        origin = arrays.unmoved(self._task.reply or arrays)
        replies = [self._reply(arrays, server_round, number) for number in accepted]
        joined = [Joined(n, n, len(self._sites[n].train_labels), agreed=True) for n in accepted]
        asked = {site.node: self._receipts.ask(site, server_round) for site in joined}
        bounds = Bounds(self._config.clip_factor, self._config.clip_norm)
        moved = partial(self._rule.moved, origin, dtype=self._config.dtype)
        updates, _ = judge(replies, asked, self._rule.lift(origin), moved, bounds)
        weighed = [
            replace(update, update=self._rule.place(arrays, update.update, server_round))
            for update in weigh(updates, self._config)
        ]
        messages = {n: Message(RecordDict(), n, "train") for n in accepted}
        return merge(
            self._strategy, self._rule, arrays, weighed, messages, server_round, self._config.dtype
        ).arrays

    def _reply(self, start: PromptState, server_round: int, number: int) -> Reply:
        """Return what a site sends, as the server unpacks it."""
        site, config = self._sites[number], self._config
        trained, loss = site.train(
            start, seed=config.seed, server_round=server_round, rounds=config.rounds, mu=0.0
        )
        frozen = site.prompt.frozen_arrays()
        given = start.unmoved(trained)
        trained = trained.clip(given, self._norms[number], frozen, config.dtype)
        stamp = self._receipts.of(_joined(site), server_round)
        travelled = as_travelled(trained, config.dtype)
        return Reply(number, None, travelled, len(site.train_labels), stamp, loss)


def _joined(site: Site) -> Joined:
    return Joined(site.number, site.number, len(site.train_labels))


def read(deployment: Deployment) -> list[RoundRecord]:
    """Return the record of a deployment's rounds."""
    return RunFolder(deployment.server.run).records()
