"""Ask the sites what the prompt starts from, before round 0: noised centres of their tokens (SPT).

One exchange, judged by the gate as a round's replies are: sender, receipt, names, shapes, finite
values, copies, and a norm that is no multiple of the others'. What passed is merged by k-means,
each site's centres weighted by its images (ours). K-means gives points that lie far out a cluster
of their own, so each centre is cut to 1.5 times the median norm of its layer first, as sites cut
their own: length gives no site more of the start. Round 0's checkpoint holds the result, so a
resumed run asks nobody again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict

from fedprompt.clusters import LARGEST, Points, centres, cut
from fedprompt.errors import ConfigError, QuorumError
from fedprompt.prompt_state import PromptState
from fedprompt.round_record import RoundRecord
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.prompt import PromptConfig, SptConfig
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import CENTRES, CONFIG
from server.gate.judge import judge
from server.gate.norms import Bounds
from server.gate.replies import read_train
from server.gate.verdict import Accepted, Verdict, listed, recorded
from server.merge.rules.rule import identity_lift
from server.rounds.attempt import below_quorum, weigh
from server.rounds.exchange import LEAST_ROOM, Traffic, exchange
from server.rounds.federation import Federation
from server.rounds.strategy_adapter import Instruction
from server.run_folder import run_status

_log = logging.getLogger("fedprompt.rounds")
_ROOM = 4  # times the bytes of the prompt that a reply may have


@dataclass(frozen=True)
class Gathered:
    """Hold one try to gather a start: the merged arrays, or None and why there are none."""

    arrays: PromptState | None
    verdicts: list[Verdict]
    accepted: Sequence[Accepted]
    traffic: Traffic
    shortfall: str = ""


def check(prompt: PromptConfig, server: ServerConfig, privacy: PrivacyConfig) -> None:
    """Refuse settings under which centres cannot be asked for, or would break a promise.

    Raises
    ------
    ConfigError
        Names the setting and what to choose.
    """
    if not (isinstance(prompt, SptConfig) and prompt.start_noise):
        return
    for wrong, key, why in (
        (prompt.form == "lowrank", "prompt.form = lowrank", "the start does not travel there"),
        (prompt.personal == "local", "prompt.personal = local", "nothing is shared there"),
        (bool(prompt.public), f"prompt.public = {prompt.public!r}", "a prompt has one start"),
        (server.secure_aggregation, "server.secure_aggregation", "centres are not masked"),
        (
            bool(privacy.noise_multiplier),
            f"privacy.noise_multiplier = {privacy.noise_multiplier}",
            "the ledger does not count what centres tell",
        ),
    ):
        if wrong:
            raise ConfigError(
                f"{key} under prompt.start_noise = {prompt.start_noise}: {why}; set "
                "prompt.start_noise = 0, or change the other"
            )


def gather(
    federation: Federation, on_verdicts: Callable[[Sequence[Verdict]], None]
) -> tuple[PromptState, RoundRecord]:
    """Return the start that the sites' centres merge to, and what the record says of it.

    Raises
    ------
    QuorumError
        Too few replies passed in every try, or no site has images.
    """
    for number in range(federation.config.retries + 1):
        found = _try(federation)
        on_verdicts(found.verdicts)
        if found.arrays is not None:
            return found.arrays, _recorded(found)
        refused = [verdict for verdict in found.verdicts if not verdict.accepted]
        told = listed(refused)
        complaint = f"{found.shortfall}. {told or 'None was refused'}"
        _log.warning("the prompt's start, try %d: %s", number + 1, complaint)
    raise QuorumError(
        f"the sites' centres did not suffice for a start in {number + 1} tries: {complaint}. A "
        "site's min_start_noise must allow them; or name images in prompt.public instead."
    )


def merged(updates: Sequence[Accepted], length: int, seed: int) -> PromptState:
    """Return ``length`` centres a layer of all sites' centres, weighted by the sites' images."""
    weights = np.repeat([update.weight / length for update in updates], length)
    names = updates[0].update
    clustered = {
        name: centres(
            _within(np.concatenate([u.update[name] for u in updates])), weights, length, seed
        )
        for name in names
    }
    # so few digits are the same whatever processor adds up
    return PromptState(clustered).rounded("float16")


def _try(federation: Federation) -> Gathered:
    f, c, start = federation, federation.config, federation.task.arrays
    sites = [f.roster.sites[number] for number in sorted(f.roster.sites)]
    content = RecordDict({CONFIG: Instruction(f.task.run, 0, c.seed, len(sites)).record()})
    room = max(LEAST_ROOM, _ROOM * sum(array.nbytes for array in start.values()))
    contents = {site.node: content for site in sites}
    answers, traffic = exchange(f.grid, contents, CENTRES, c.deadline, room=room)
    names, replies = {site.node: site.partition for site in sites}, []
    for answer in answers:
        with run_status.blaming(names[answer.node]):
            replies.append(read_train(answer, start, c.dtype, mixed_ranks=False))
    nothing = {name: np.zeros(array.shape) for name, array in start.items()}
    bounds = Bounds(c.clip_factor, 0.0)
    accepted, verdicts = judge(replies, f.asked(sites, 0), nothing, identity_lift, bounds)
    updates = weigh(accepted, c)
    passed = sum(verdict.accepted for verdict in verdicts)
    shortfall = below_quorum(c, len(sites), passed, len(updates))
    if not updates:
        shortfall = shortfall or "no site has images to start from"
    if shortfall:
        return Gathered(None, verdicts, updates, traffic, shortfall)
    length = len(next(iter(start.values())))
    return Gathered(merged(updates, length, c.seed), verdicts, updates, traffic)


def _within(points: Points) -> Points:
    """Return points cut to what is usual among them."""
    return cut(points, LARGEST * float(np.median(np.linalg.norm(points, axis=-1))))


def _recorded(found: Gathered) -> RoundRecord:
    return RoundRecord(
        round=0,
        start_sites=tuple(update.site for update in found.accepted),
        start_verdicts=recorded(verdict for verdict in found.verdicts if verdict.reasons),
        start_bytes_up=found.traffic.up,
        start_bytes_down=found.traffic.down,
    )
