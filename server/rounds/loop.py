"""Run the rounds: try each one until its quorum holds, evaluate, commit.

The loop is ours, on Flower's public Grid and around any of its strategies: Flower's own loop keeps
no checkpoint, believes every reply and samples differently in each engine.
"""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flwr.serverapp import Grid

import fedprompt
from fedprompt.errors import ConfigError, QuorumError
from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.server import ServerConfig
from fedprompt.storage import check_writable
from server.gate.quarantine import Conduct
from server.gate.verdict import Verdict, recorded
from server.merge import robust, strategies
from server.merge.privacy.mechanism import Mechanism
from server.merge.prompt_averaging import RoundAverage
from server.rounds import spt_start
from server.rounds.attempt import attempt, complaint, sample, trained
from server.rounds.evaluation import evaluate, is_due
from server.rounds.federation import Task, federation
from server.rounds.strategy_adapter import as_travelled
from server.run_folder import checkpoint
from server.run_folder.checkpoint import Checkpoint, load_latest, save

log = logging.getLogger("fedprompt.rounds")
_WEAK_MASKS = (
    "secure aggregation: Flower's masks grow from seeds of 28 and 32 bits; they hide updates "
    "from a server that follows the protocol, not from one that searches (docs/privacy.md)"
)


def check_vacant(config: ServerConfig) -> None:
    """Refuse a folder that holds an earlier run, unless it is to be resumed or overwritten.

    Raises
    ------
    ConfigError
        Says how far the earlier run came and what to do.
    """
    check_writable(Path(config.output), "folder")
    old = checkpoint.files(RunFolder(Path(config.output)).checkpoints)
    if old and not (config.resume or config.overwrite):
        raise ConfigError(
            f"{config.output} holds an earlier run up to {old[0].stem}; continue it with "
            "--resume, give another --output, or replace it with --set server.overwrite=true"
        )


class Rounds:
    """Run a task's rounds on any Flower grid, going on after the last committed one.

    ``sites`` is how many must join before the first round.
    """

    def __init__(
        self,
        grid: Grid,
        task: Task,
        config: ServerConfig,
        sites: int,
        mechanism: Mechanism | None = None,
    ) -> None:
        if config.secure_aggregation:
            log.warning(_WEAK_MASKS)
        self.config, self.least = config, sites
        self.federation = federation(grid, task, config, mechanism)
        self.average = RoundAverage(task, config, self.federation.rule)
        self.folder = RunFolder(Path(config.output))
        self.conduct = Conduct()

    def run(self) -> Checkpoint:
        """Run every round that is not committed yet and return the last state.

        Raises
        ------
        ConfigError
            The strategy cannot bear ``server.byzantine`` hostile sites among so few.
        QuorumError
            Too few sites joined, or too few replies passed in every try; the last committed
            round stays on disk.
        """
        return deque(self.committed(), maxlen=1).pop()

    def committed(self) -> Iterator[Checkpoint]:
        """Yield the state after each committed round, the one that was begun from first."""
        state = self._resume() if self.config.resume else None
        if not self.config.resume:
            self._clear()
        self.federation.roster.wait(self.federation.grid, self.least, self.config.join_deadline)
        joined = len(self.federation.roster.sites)
        asked = len(sample(self.federation, "", ()))
        robust.check_sites(self.config, joined, asked)
        if state is None:
            state = self._start()
        yield state
        for server_round in range(state.round + 1, self.config.rounds + 1):
            yield (state := self._round(state, server_round))

    def _clear(self) -> None:
        """Make room for a fresh run, if the user allowed it."""
        check_vacant(self.config)
        for path in checkpoint.files(self.folder.checkpoints):
            path.unlink()
        self.folder.truncate(-1)

    def _resume(self) -> Checkpoint | None:
        state = load_latest(self.folder.checkpoints, self.federation.task.run)
        if self.federation.mechanism:
            self.federation.mechanism.resume(state.round if state else 0)
        self.folder.truncate(state.round if state else -1)
        if state:
            strategies.restore(self.federation.strategy, state.optimiser)
            self.average.restore(state.optimiser)
            self.federation.domains.restore(state.optimiser)
            self.conduct = state.conduct
            log.info("resuming after round %d", state.round)
        return state

    def _start(self) -> Checkpoint:
        """Evaluate the untrained prompt, which is zero-shot CLIP, and commit it as round 0.

        Where the sites have a say in it they are asked first.
        """
        started, task, roster = time.monotonic(), self.federation.task, self.federation.roster
        arrays = task.arrays
        record = RoundRecord(
            round=0,
            joined=tuple(sorted(roster.sites)),
            refused=recorded(roster.refused.values()),
            join_bytes_up=roster.traffic.up,
            join_bytes_down=roster.traffic.down,
        )
        if self.federation.domains.names:
            record |= RoundRecord(round=0, domains=self._domains_of_sites())
        if task.asks_start:
            arrays, gathered = spt_start.gather(self.federation, lambda v: self._strike(v, 0))
            record |= gathered
        arrays = as_travelled(arrays, self.config.dtype)
        return self._commit(Checkpoint(task.run, 0, arrays), record, started)

    def _domains_of_sites(self) -> dict[int, str]:
        names, sites = self.federation.domains.names, self.federation.roster.sites
        domains = {number: sites[number].domain for number in sorted(sites)}
        for name in sorted(set(names) - set(domains.values())):
            log.warning("no site of the domain %s has joined: its prompt stays at the start", name)
        return domains

    def _round(self, state: Checkpoint, server_round: int) -> Checkpoint:
        started, f = time.monotonic(), self.federation
        if f.mechanism:
            f.mechanism.check()
        self.conduct = self.conduct.release(server_round)
        for number in range(self.config.retries + 1):
            # the first try takes whoever is there; after a failed one, absent sites may come back
            wanted, deadline = self.least if number else 0, self.config.deadline
            f.roster.gather(f.grid, wanted, deadline, self.conduct.quarantined)
            self._strike(f.roster.offences, server_round)
            f.roster.offences.clear()
            out = self.conduct.quarantined
            found = attempt(f, state.arrays, server_round, number, _answered, out)
            self._strike(found.verdicts, server_round)
            if found.merged:
                merged = self.average.after(server_round, found.merged)
                state = replace(state, round=server_round, arrays=merged.arrays)
                record = trained(found, merged, server_round, number)
                if f.mechanism:
                    record |= RoundRecord(round=server_round, epsilon=f.mechanism.spent())
                return self._commit(state, record, started)
            log.warning("round %d, try %d: %s", server_round, number + 1, complaint(found))
        sitting = ", ".join(f"site {site}" for site in sorted(self.conduct.quarantined))
        raise QuorumError(
            f"round {server_round} stayed below quorum in {self.config.retries + 1} tries; "
            f"round {state.round} is kept in {self.folder.path}. Last try: {complaint(found)}. "
            f"In quarantine: {sitting or 'nobody'}. "
            f"The log names what was wrong with each reply; {_advice(found.verdicts)}"
        )

    def _commit(self, state: Checkpoint, record: RoundRecord, started: float) -> Checkpoint:
        """Evaluate, write the record, then the checkpoint that makes the round count."""
        f = self.federation
        if is_due(state.round, self.config.rounds, self.config.evaluate_every):
            out = self.conduct.quarantined
            scored, verdicts = evaluate(f, state.arrays, state.round, out)
            self._strike(verdicts, state.round)
            record |= scored
        description = f.task.describe(state.arrays)
        record |= RoundRecord(
            round=state.round,
            run=f.task.run,
            prompt=state.arrays.sha256,
            seconds=round(time.monotonic() - started, 3),
            time=datetime.now(UTC),
            version=fedprompt.__version__,
            nodes={number: site.node for number, site in f.roster.sites.items()},
            strikes=dict(self.conduct.strikes),
            quarantined=tuple(sorted(self.conduct.quarantined)),
            information_density=description.information_density,
            change_rank=description.change_rank,
        )
        f.domains.after(state.arrays)
        optimiser = strategies.state(f.strategy) | self.average.state() | f.domains.state()
        state = replace(state, optimiser=optimiser, conduct=self.conduct)
        self.folder.append(record)
        save(self.folder.checkpoints, state)
        extra = {"event": "round", "round": state.round, logs.ROUND: record}
        log.info(record.summary(self.config.rounds), extra=extra)
        return state

    def _strike(self, verdicts: Iterable[Verdict], server_round: int) -> None:
        c, before = self.config, self.conduct.quarantined
        self.conduct = self.conduct.strike(
            verdicts, server_round, c.quarantine, c.quarantine_rounds
        )
        for site in sorted(self.conduct.quarantined.keys() - before.keys()):
            last = self.conduct.quarantined[site]
            log.warning("site %d is in quarantine until round %d is over", site, last)


def _advice(verdicts: Sequence[Verdict]) -> str:
    """Return how to go on after a round that came to nothing."""
    if verdicts and all(v.diverged for v in verdicts):
        return (
            "every site's training diverges, and a resumed run keeps its settings: begin anew with "
            "a lower fit.learning_rate, in another --output or with --set server.overwrite=true."
        )
    return "continue with --resume."


def _answered(count: int) -> None:
    log.debug("%d answered", count, extra={"answered": count})
