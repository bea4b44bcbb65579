"""Run the rounds: try each one until its quorum holds, evaluate, commit.

The loop is ours, on Flower's public Grid and around any of its strategies: Flower's own loop keeps
no checkpoint, believes every reply and samples differently in each engine.
"""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedprompt.errors import ConfigError, QuorumError
from fedprompt.identity import sha256_arrays
from server import record, strategies
from server.attempt import attempt, complaint, line
from server.checkpoint import Checkpoint, load_latest, save
from server.config import ServerConfig
from server.evaluation import evaluate, is_due
from server.federation import Task, federation, tell
from server.training import as_travelled
from server.verdict import Verdict

log = logging.getLogger("fedprompt.rounds")
RECORD, CHECKPOINTS = "rounds.jsonl", "checkpoints"


def check_vacant(config: ServerConfig) -> None:
    """Refuse a folder that holds an earlier run, unless it is to be resumed or overwritten.

    Raises
    ------
    ConfigError
        Says how far the earlier run came and what to do.
    """
    old = _checkpoints(config)
    if old and not (config.resume or config.overwrite):
        raise ConfigError(
            f"{config.output} holds an earlier run up to {old[-1].stem}; continue it with "
            "--resume, give another --output, or set server.overwrite=true"
        )


def _checkpoints(config: ServerConfig) -> list[Path]:
    return sorted((Path(config.output) / CHECKPOINTS).glob("*.safetensors"))


class Rounds:
    """Run a task's rounds on any Flower grid, going on after the last committed one.

    ``sites`` is how many must join before the first round.
    """

    def __init__(self, grid: Grid, task: Task, config: ServerConfig, sites: int) -> None:
        self.config, self.least = config, sites
        self.federation = federation(grid, task, config)
        self.folder = Path(config.output)
        self.strikes: dict[int, int] = {}

    def run(self) -> Checkpoint:
        """Run every round that is not committed yet and return the last state.

        Raises
        ------
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
        if state is None:
            state = self._start()
        yield state
        for server_round in range(state.round + 1, self.config.rounds + 1):
            yield (state := self._round(state, server_round))

    def _clear(self) -> None:
        """Make room for a fresh run, if the user allowed it."""
        check_vacant(self.config)
        for path in _checkpoints(self.config):
            path.unlink()
        record.truncate(self.folder / RECORD, -1)

    def _resume(self) -> Checkpoint | None:
        state = load_latest(self.folder / CHECKPOINTS, self.federation.task.run)
        record.truncate(self.folder / RECORD, state.round if state else -1)
        if state:
            strategies.restore(self.federation.strategy, state.optimiser)
            self.strikes = dict(state.strikes)
            log.info("resuming after round %d", state.round)
        return state

    def _start(self) -> Checkpoint:
        """Evaluate the untrained prompt, which is zero-shot CLIP, and commit it as round 0."""
        started, task, roster = time.monotonic(), self.federation.task, self.federation.roster
        arrays = as_travelled(task.arrays, self.config.dtype)
        joined = {
            "joined": sorted(roster.sites),
            "refused": [tell(verdict) for verdict in roster.refused.values()],
            "join_bytes_up": roster.traffic.up,
            "join_bytes_down": roster.traffic.down,
        }
        return self._commit(Checkpoint(task.run, 0, arrays), joined, started)

    def _round(self, state: Checkpoint, server_round: int) -> Checkpoint:
        started, f = time.monotonic(), self.federation
        for number in range(self.config.retries + 1):
            f.roster.refresh(f.grid, self.config.deadline)
            found = attempt(f, state.arrays, server_round, number, _answered)
            self._strike(found.verdicts)
            if found.merged:
                state = replace(state, round=server_round, arrays=found.merged.arrays)
                told = {"attempt": number} | line(found, found.merged)
                return self._commit(state, told, started)
            log.warning("round %d, try %d: %s", server_round, number + 1, complaint(found))
        raise QuorumError(
            f"round {server_round} stayed below quorum in {self.config.retries + 1} tries; "
            f"round {state.round} is kept in {self.folder}. "
            "The log names what was wrong with each reply; continue with --resume."
        )

    def _commit(self, state: Checkpoint, told: dict[str, Any], started: float) -> Checkpoint:
        """Evaluate, write the record's line, then the checkpoint that makes the round count."""
        f = self.federation
        if is_due(state.round, self.config.rounds, self.config.evaluate_every):
            scored, verdicts = evaluate(f, state.arrays, state.round)
            self._strike(verdicts)
            told |= scored
        told |= f.task.describe(state.arrays)
        told |= {
            "round": state.round,
            "run": f.task.run,
            "prompt": sha256_arrays(state.arrays),
            "strikes": {str(site): n for site, n in sorted(self.strikes.items())},
            "nodes": {str(p): site.node for p, site in sorted(f.roster.sites.items())},
            "seconds": round(time.monotonic() - started, 3),
        }
        state = replace(state, optimiser=strategies.state(f.strategy), strikes=dict(self.strikes))
        record.append(self.folder / RECORD, told)
        save(self.folder / CHECKPOINTS, state)
        log.info(record.summary(told, self.config.rounds), extra={"round_line": told})
        return state

    def _strike(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            if verdict.strike and verdict.site is not None:
                self.strikes[verdict.site] = self.strikes.get(verdict.site, 0) + 1


def _answered(count: int) -> None:
    log.debug("%d answered", count, extra={"answered": count})
