"""When is killed what: a seeded plan, and the moments that were carried out."""

import random
from dataclasses import dataclass
from itertools import cycle, islice

SERVER = ("serverapp", "superlink", "supervisor")
SITE = ("supernode", "worker")
LAST_SHARE = 0.58  # of the run, after which the server is left alone, to see its memory


@dataclass(frozen=True)
class Planned:
    """Kill a process of a kind once a round is committed and a share of the next one has passed."""

    round: int
    kind: str
    delay: float  # of a round's usual time


@dataclass(frozen=True)
class Kill:
    """Hold a kill that was carried out."""

    kind: str
    pid: int
    round: int  # last committed
    moment: float  # seconds of the monotonic clock


def plan(rounds: int, server: int, site: int, seed: int) -> list[Planned]:
    """Return kills in order: the server's in the first part of the run, the sites' in all of it."""
    draw = random.Random(seed)  # noqa: S311 (not for secrets)
    early = max(1, round(LAST_SHARE * rounds))
    planned = _some(draw, SERVER, server, early) + _some(draw, SITE, site, max(1, rounds - 1))
    return sorted(planned, key=lambda kill: (kill.round, kill.kind))


def _some(draw: random.Random, kinds: tuple[str, ...], count: int, before: int) -> list[Planned]:
    """Return so many kills, the kinds in turn, at rounds as different as there are."""
    moments = [r for _ in range(count // before) for r in range(before)]
    moments += draw.sample(range(before), count % before)
    draw.shuffle(moments)
    named = islice(cycle(kinds), count)
    return [Planned(r, kind, draw.random()) for r, kind in zip(moments, named, strict=True)]
