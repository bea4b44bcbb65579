"""Run the rounds: ask sites, check their replies, merge, evaluate, commit.

The loop is ours, on Flower's public Grid and around any of its strategies: Flower's own loop keeps
no checkpoint, believes every reply and samples differently in each engine.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedprompt.errors import ConfigError, QuorumError
from fedprompt.identity import sha256_arrays
from fedprompt.wire import ARRAYS, CONFIG, Arrays, to_array_record
from server import record, strategies
from server.checkpoint import Checkpoint, load_latest, save
from server.config import ServerConfig
from server.evaluation import judge_scores, summarise
from server.exchange import exchange
from server.gate import Bounds, Verdict, judge
from server.receipts import Receipts
from server.replies import read_evaluate, read_train
from server.roster import Roster
from server.rules import RULES
from server.training import Instruction, as_travelled, merge, plan

log = logging.getLogger("fedprompt.rounds")
RECORD, CHECKPOINTS = "rounds.jsonl", "checkpoints"


@dataclass(frozen=True)
class Task:
    """Hold what is trained, who may take part and how a prompt is described in the record."""

    arrays: Arrays
    identity: Mapping[str, str]
    describe: Callable[[Arrays], Mapping[str, float]]  # e.g. its information density
    run: str  # digest of all that must not change between a run and its resumption


class Rounds:
    """Run a task's rounds on any Flower grid, going on after the last committed one.

    ``sites`` is how many must join before the first round.
    """

    def __init__(self, grid: Grid, task: Task, config: ServerConfig, sites: int) -> None:
        self.grid, self.task, self.config, self.least = grid, task, config, sites
        self.rule = RULES[config.rule]
        self.strategy = strategies.STRATEGIES[config.strategy](config)
        self.roster = Roster(task.identity)
        self.receipts = Receipts(task.run, task.identity)
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
        state = self._resume()
        self.roster.wait(self.grid, self.least, self.config.join_deadline)
        if state is None:
            state = self._start()
        for server_round in range(state.round + 1, self.config.rounds + 1):
            state = self._round(state, server_round)
        return state

    def _resume(self) -> Checkpoint | None:
        folder = self.folder / CHECKPOINTS
        if not self.config.resume:
            _clear(folder, self.config.overwrite)
            record.truncate(self.folder / RECORD, -1)
            return None
        state = load_latest(folder, self.task.run)
        record.truncate(self.folder / RECORD, state.round if state else -1)
        if state:
            strategies.restore(self.strategy, state.optimiser)
            self.strikes = dict(state.strikes)
            log.info("resuming after round %d", state.round)
        return state

    def _start(self) -> Checkpoint:
        """Evaluate the untrained prompt, which is zero-shot CLIP, and commit it as round 0."""
        started = time.monotonic()
        arrays = as_travelled(self.task.arrays, self.config.dtype)
        refused = [_tell(verdict) for verdict in self.roster.refused.values()]
        joined = {"joined": sorted(self.roster.sites), "refused": refused}
        traffic = self.roster.traffic
        line = {"round": 0, **joined, "join_bytes_up": traffic.up, "join_bytes_down": traffic.down}
        return self._commit(Checkpoint(self.task.run, 0, arrays), line, started)

    def _round(self, state: Checkpoint, server_round: int) -> Checkpoint:
        started = time.monotonic()
        for attempt in range(self.config.retries + 1):
            self.roster.refresh(self.grid, self.config.deadline)
            if trained := self._train(state, server_round, attempt):
                arrays, line = trained
                state = replace(state, round=server_round, arrays=arrays)
                return self._commit(state, line, started)
        raise QuorumError(
            f"round {server_round} stayed below quorum in {self.config.retries + 1} tries; "
            f"round {state.round} is kept in {self.folder}. "
            "The log names what was wrong with each reply; continue with --resume."
        )

    def _train(
        self, state: Checkpoint, server_round: int, attempt: int
    ) -> tuple[Arrays, dict[str, Any]] | None:
        """Ask the round's sites once; return the merged arrays and the round's line, or None."""
        c, rule, lifted = self.config, self.rule, self.rule.lift(state.arrays)
        sites = self.roster.sample(c.fraction, 1, f"{c.seed}:{server_round}:{attempt}")
        instruction = Instruction(self.task.run, server_round, c.seed)
        contents = plan(self.strategy, self.grid, state.arrays, lifted, sites, instruction, c.dtype)
        answers, traffic = exchange(self.grid, contents, "train", c.deadline, _answered)
        replies = [read_train(a, state.arrays, c.dtype, rule.mixed_ranks) for a in answers]
        asked = {site.node: self.receipts.ask(site, server_round) for site in sites}
        bounds = Bounds(c.clip_factor, c.clip_norm)
        updates, verdicts = judge(replies, asked, lifted, rule.lift, bounds)
        self._strike(verdicts)
        accepted = [verdict.site for verdict in verdicts if verdict.accepted]
        if len(accepted) < max(1, math.ceil(c.quorum * len(sites))):
            _report(server_round, attempt, len(sites), verdicts)
            return None
        messages = {answer.node: answer.message for answer in answers}
        merged = merge(self.strategy, rule, state.arrays, updates, messages, server_round, c.dtype)
        total = sum(update.weight for update in updates)
        return merged.arrays, {
            "round": server_round,
            "attempt": attempt,
            "asked": [site.partition for site in sites],
            "answered": sorted(asked[node].site for node in {r.node for r in replies}),
            "accepted": accepted,
            "verdicts": [_tell(verdict) for verdict in verdicts if verdict.reasons],
            "loss": sum(u.weight * u.loss for u in updates) / total if total else None,
            "truncation_error": merged.truncation_error,
            "bytes_up": traffic.up,
            "bytes_down": traffic.down,
        }

    def _evaluate(self, arrays: Arrays, server_round: int) -> dict[str, Any]:
        """Return every site's accuracy on its own held-out images, where this round is due."""
        c = self.config
        last = server_round in (0, c.rounds)
        if not (last or (c.evaluate_every and server_round % c.evaluate_every == 0)):
            return {}
        instruction = Instruction(self.task.run, server_round, c.seed).record()
        content = RecordDict({ARRAYS: to_array_record(arrays, c.dtype), CONFIG: instruction})
        sites = list(self.roster.sites.values())
        contents = {site.node: content for site in sites}
        answers, traffic = exchange(self.grid, contents, "evaluate", c.deadline)
        asked = {site.node: self.receipts.ask(site, server_round) for site in sites}
        scores, verdicts = judge_scores([read_evaluate(a) for a in answers], asked)
        self._strike(verdicts)
        enrolled = {site.partition: site.enrolled for site in sites}
        return summarise(scores, enrolled) | {
            "evaluation_verdicts": [_tell(verdict) for verdict in verdicts],
            "evaluation_bytes_up": traffic.up,
            "evaluation_bytes_down": traffic.down,
        }

    def _commit(self, state: Checkpoint, line: dict[str, Any], started: float) -> Checkpoint:
        """Evaluate, write the record's line, then the checkpoint that makes the round count."""
        line |= self._evaluate(state.arrays, state.round)
        line |= dict(self.task.describe(state.arrays))
        line |= {
            "strikes": {str(site): n for site, n in sorted(self.strikes.items())},
            "run": self.task.run,
            "prompt": sha256_arrays(state.arrays),
            "nodes": {str(p): site.node for p, site in sorted(self.roster.sites.items())},
            "seconds": round(time.monotonic() - started, 3),
        }
        state = replace(
            state, optimiser=strategies.state(self.strategy), strikes=dict(self.strikes)
        )
        record.append(self.folder / RECORD, line)
        save(self.folder / CHECKPOINTS, state)
        log.info(record.summary(line, self.config.rounds), extra={"round_line": line})
        return state

    def _strike(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            if verdict.strike and verdict.site is not None:
                self.strikes[verdict.site] = self.strikes.get(verdict.site, 0) + 1


def _clear(folder: Path, overwrite: bool) -> None:
    """Make room for a fresh run, if the user allowed it."""
    old = sorted(folder.glob("*.safetensors"))
    if old and not overwrite:
        raise ConfigError(
            f"{folder.parent} holds an earlier run up to {old[-1].stem}; continue it with "
            "--resume, give another --output, or set server.overwrite=true"
        )
    for path in old:
        path.unlink()


def _tell(verdict: Verdict) -> dict[str, Any]:
    return {
        "site": verdict.site,
        "node": verdict.node,
        "accepted": verdict.accepted,
        "reasons": [str(reason) for reason in verdict.reasons],
        "detail": verdict.detail,
    }


def _report(server_round: int, attempt: int, asked: int, verdicts: list[Verdict]) -> None:
    refused = [verdict for verdict in verdicts if not verdict.accepted]
    told = "; ".join(f"site {v.site}: {', '.join(v.reasons)} ({v.detail})" for v in refused[:10])
    log.warning(
        "round %d, try %d: %d of %d replies refused, below quorum: %s%s",
        server_round, attempt + 1, len(refused), asked, told, " ..." if refused[10:] else "",
    )  # fmt: skip


def _answered(count: int) -> None:
    log.debug("%d answered", count, extra={"answered": count})
