"""One try of a round: ask the sampled sites, judge their replies, merge what passed."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from flwr.app import RecordDict

from fedprompt.prompt_state import PromptState
from fedprompt.round_record import Measure, RoundRecord
from fedprompt.secure_sum import flatten
from fedprompt.settings.server import ServerConfig
from server.gate.duplicate_updates import name_holding
from server.gate.judge import judge
from server.gate.limits import weighted_mean
from server.gate.norms import Bounds
from server.gate.outliers import measure
from server.gate.replies import read_train
from server.gate.verdict import Accepted, Reason, Reply, Verdict, listed, recorded
from server.joining.admission import Site
from server.merge import robust
from server.merge.rules import Projection
from server.merge.secure_aggregation.mean import secure_mean
from server.merge.secure_aggregation.protocol import Protocol
from server.merge.secure_aggregation.stages import Expected
from server.rounds.exchange import Answer, Traffic, exchange
from server.rounds.federation import Federation
from server.rounds.strategy_adapter import Instruction, merge, merge_mean, plan
from server.run_folder import run_status

_ABSENT = frozenset({Reason.TIMEOUT, Reason.WITHHELD})  # no reply was read


@dataclass(frozen=True)
class Attempt:
    """Hold what a try gave: the merged arrays, or None and why there are none."""

    sites: list[Site]
    verdicts: list[Verdict]
    updates: Sequence[Accepted]
    traffic: Traffic
    merged: Projection | None
    shortfall: str = ""
    measures: Mapping[int, Measure] = field(default_factory=dict)  # by site
    arrived: Mapping[int, str] = field(default_factory=dict)  # hashes of the arrays, by site

    @property
    def loss(self) -> float | None:
        """Return the mean training loss of the sites that tell it, weighted as their updates."""
        told = [(update.weight, update.loss) for update in self.updates if update.loss is not None]
        return weighted_mean(told) if told else None


def attempt(
    federation: Federation,
    arrays: PromptState,
    server_round: int,
    number: int,
    on_reply: Callable[[int], None],
    without: Collection[int] = (),
) -> Attempt:
    """Ask the round's sites once, and merge what passed if it suffices.

    The sample depends on seed, round and number, and on the sites that may be asked: those in
    quarantine, ``without``, may not.
    """
    f, c = federation, federation.config
    sites = sample(f, f"{c.seed}:{server_round}:{number}", without)
    if not sites:  # a strategy would wait for nodes without end
        return Attempt([], [], [], Traffic(0, 0), None, "no site is left to ask")
    instruction = Instruction(f.task.run, server_round, c.seed, len(sites))
    wire = f.domains.records(arrays, sites, c.dtype)
    contents = plan(f.strategy, f.grid, f.rule.lift(arrays), wire, instruction)
    if c.secure_aggregation:
        return in_secret(f, arrays, sites, contents, server_round, on_reply)
    answers, traffic = exchange(f.grid, contents, "train", c.deadline, on_reply)
    by_node = {site.node: site for site in sites}
    unmoved = f.unmoved(arrays)
    origin = f.rule.lift(unmoved)
    replies = [_read(f, answer, unmoved, by_node[answer.node]) for answer in answers]
    # under privacy one site's norm must not decide what becomes of another's update
    bounds = Bounds(0.0 if f.mechanism else c.clip_factor, c.clip_norm)
    asked = f.asked(sites, server_round)
    moved = partial(f.rule.moved, unmoved, dtype=c.dtype)
    accepted, verdicts = judge(replies, asked, origin, moved, bounds)
    updates = weigh(accepted, c)
    verdicts = name_holding(verdicts, updates)
    passed = sum(verdict.accepted for verdict in verdicts)
    if shortfall := below_quorum(c, len(sites), passed, len(updates)):
        return Attempt(sites, verdicts, updates, traffic, None, shortfall)
    if f.mechanism:  # no site is measured: the record would tell what the noise hides
        changes = [update.update for update in updates]
        mean = f.mechanism.release(changes, origin, server_round, len(sites))
        mean = f.rule.place(arrays, mean, server_round)
        merged = merge_mean(f.strategy, f.rule, arrays, mean, server_round, c.dtype)
        return Attempt(sites, verdicts, updates, traffic, merged)
    messages = {answer.node: answer.message for answer in answers}
    updates = [replace(u, update=f.rule.place(arrays, u.update, server_round)) for u in updates]
    pooled = f.domains.pooled(updates, sites)
    merged = merge(f.strategy, f.rule, arrays, pooled, messages, server_round, c.dtype)
    measures = measure(updates, f.rule.lift(arrays), f.rule.lift(merged.arrays))
    arrived = {asked[reply.node].site: reply.digest for reply in replies if reply.digest}
    return Attempt(sites, verdicts, updates, traffic, merged, "", measures, arrived)


def _read(federation: Federation, answer: Answer, unmoved: PromptState, site: Site) -> Reply:
    """Unpack a site's reply; arrays that are not its own to send are as they were."""
    f = federation
    own = f.domains.returned(unmoved, site)
    with run_status.blaming(site.partition):
        reply = read_train(answer, own, f.config.dtype, f.rule.mixed_ranks)
    return reply if reply.arrays is None else replace(reply, arrays=unmoved | reply.arrays)


def in_secret(
    federation: Federation,
    arrays: PromptState,
    sites: list[Site],
    contents: Mapping[int, RecordDict],
    server_round: int,
    on_reply: Callable[[int], None],
) -> Attempt:
    """Merge the sites' mean without seeing an update, if enough masked ones came."""
    f, c = federation, federation.config
    origin = f.rule.lift(f.unmoved(arrays))
    clip = f.mechanism.config.clip_norm if f.mechanism else c.clip_norm
    needed = max(1, math.ceil(c.quorum * len(sites)))
    expected = Expected(f.asked(sites, server_round), flatten(origin).size)
    protocol = Protocol(f.grid, contents, expected, needed, c.deadline, on_reply)
    found = secure_mean(protocol, origin, clip)
    if found.change is None:
        return Attempt(sites, found.verdicts, [], found.traffic, None, found.shortfall)
    share = found.weight / len(sites) if f.mechanism else 1.0  # as if the others had not moved
    mean = {name: origin[name] + share * found.change[name] for name in origin}
    if f.mechanism:
        mean = f.mechanism.hide(mean, server_round, len(sites))
    mean = f.rule.place(arrays, mean, server_round)
    merged = merge_mean(f.strategy, f.rule, arrays, mean, server_round, c.dtype)
    return Attempt(sites, found.verdicts, [], found.traffic, merged)


def sample(federation: Federation, seed: str, without: Collection[int]) -> list[Site]:
    """Return the sites to ask, by partition, none of those in quarantine."""
    roster = federation.roster
    free = {site: found for site, found in roster.sites.items() if site not in without}
    return replace(roster, sites=free).sample(federation.config.fraction, seed)


def weigh(updates: Sequence[Accepted], config: ServerConfig) -> list[Accepted]:
    """Return the updates with the weights they are merged with.

    Robust strategies count every site once: a weight is the site's own claim.
    """
    if config.weighting == "uniform" or config.strategy in robust.LEAST:
        return [replace(update, weight=1) for update in updates]
    return list(updates)


def below_quorum(config: ServerConfig, asked: int, passed: int, updates: int) -> str:
    """Return why the replies do not suffice; empty if they do.

    Sites that abstain make a quorum, but a robust strategy needs updates. A round in which all
    abstain has nothing that could be spoilt.
    """
    needed = max(1, math.ceil(config.quorum * asked))
    if passed < needed:
        return f"{passed} of {asked} replies passed, {needed} needed"
    return robust.too_few(config, updates) if updates else ""


def trained(found: Attempt, merged: Projection, server_round: int, number: int) -> RoundRecord:
    """Return the record of a try that reached its quorum."""
    return RoundRecord(
        round=server_round,
        attempt=number,
        asked=tuple(site.partition for site in found.sites),
        answered=_sites(v for v in found.verdicts if _ABSENT.isdisjoint(v.reasons)),
        accepted=_sites(v for v in found.verdicts if v.accepted),
        arrived=dict(found.arrived),
        verdicts=recorded(verdict for verdict in found.verdicts if verdict.reasons),
        loss=found.loss,
        outliers=dict(found.measures),
        truncation_error=merged.truncation_error,
        truncation_of_change=merged.truncation_of_change,
        bytes_up=found.traffic.up,
        bytes_down=found.traffic.down,
    )


def _sites(verdicts: Iterable[Verdict]) -> tuple[int, ...]:
    return tuple(verdict.site for verdict in verdicts if verdict.site is not None)


def complaint(found: Attempt) -> str:
    """Return why a try came to nothing and what was wrong with its replies, in one line."""
    refused = [verdict for verdict in found.verdicts if not verdict.accepted]
    return f"{found.shortfall}; {len(refused)} refused: {listed(refused) or 'none'}"
