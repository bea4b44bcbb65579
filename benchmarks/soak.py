"""Months in an hour: ``python -m benchmarks.soak [--json]``, 200 rounds over 100 sites with kills.

The server is ``flower-server start``, TLS and keys on. Some sites are real (``flower-client
start``: SuperNode, worker, CLIP); one process is all the others (`benchmarks.fleet`). At random
moments something is killed with SIGKILL: ServerApp, SuperLink, the server's supervisor, a SuperNode
or a worker. What has nobody above it is started again, as systemd would.

``rounds_lost`` counts the rounds that the record lacks or has twice, and those whose first try fell
below quorum without a kill shortly before. ``resumed_identical`` says that a replay of the whole
record in one process (`benchmarks.replay`) gives every round's prompt bit for bit.
``memory_growth`` is that of the kind of process that grew most (`benchmarks.growth`).
"""

import json
import logging
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import kills, replay
from benchmarks.console import machine, show
from benchmarks.deployment import Deployment, make
from benchmarks.growth import Growth, growth
from benchmarks.kills import Kill
from benchmarks.theatre import Theatre
from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord
from fedprompt.settings.section import Flat

log = logging.getLogger("fedprompt.soak")

HEARTBEAT = 60.0  # seconds until Flower notices that a site is gone


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Say how large a soak is."""

    rounds: int = 200
    nodes: int = 100
    real: int = 16
    server_kills: int = 21
    site_kills: int = 21
    fraction: float = 0.1  # of the sites, asked in a round
    deadline: float = 60.0  # seconds of an exchange
    poll: float = 3.0  # seconds between two looks of a simulated site for a message
    seed: int = 0

    def settings(self) -> Flat:
        """Return the run's settings."""
        return {
            "prompt.method": "dip",
            "fit.batch": 8,
            "server.rounds": self.rounds,
            "server.fraction": self.fraction,
            "server.quorum": 0.5,
            "server.min_sites": max(2, self.nodes // 2),
            "server.deadline": self.deadline,
            "server.join_deadline": 3 * self.deadline,
            "server.evaluate_every": 0,
            "server.seed": self.seed,
        }


def lost(records: Sequence[RoundRecord], rounds: int, excused: Sequence[int]) -> list[int]:
    """Return the rounds that were lost: absent, there twice, or tried again without a kill.

    Parameters
    ----------
    records
        Of the run.
    rounds
        How many there should be, besides round 0.
    excused
        Rounds that may have been tried more than once.
    """
    counts = Counter(record.round for record in records)
    wrong = {number for number in range(rounds + 1) if counts[number] != 1}
    wrong |= {record.round for record in records if record.attempt} - set(excused)
    return sorted(wrong)


def excused(
    records: Sequence[RoundRecord], commits: dict[int, float], done: Sequence[Kill], seconds: float
) -> list[int]:
    """Return the rounds in which, or up to ``seconds`` before which, something was killed."""
    found = []
    for record in records:
        end = commits.get(record.round, 0.0)
        start = end - record.seconds - seconds
        if any(start <= kill.moment <= end for kill in done):
            found.append(record.round)
    return found


def bytes_up(records: Sequence[RoundRecord]) -> float:
    """Return the mean bytes of one reply to a train message."""
    answered = sum(len(record.answered) for record in records)
    return sum(record.bytes_up for record in records) / max(1, answered)


def figures(setting: Setting, theatre: Theatre, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what a soak measured, but for the replay."""
    done = theatre.killed
    free = excused(records, theatre.commits, done, HEARTBEAT + setting.deadline)
    grown = growth(theatre.samples, setting.rounds)
    return {
        "rounds": len({record.round for record in records if record.round}),
        "nodes": setting.nodes,
        "real_nodes": setting.real,
        "rounds_lost": len(lost(records, setting.rounds, free)),
        "kills": len(done),
        "memory_growth": max((kind.relative for kind in grown.values()), default=None),
        "bytes_up": round(bytes_up(records)),
        "seconds": round(theatre.seconds),
        "kills_by_kind": dict(sorted(Counter(kill.kind for kill in done).items())),
        "memory_by_kind": {kind: asdict(found) for kind, found in grown.items()},
        "server_gave_up": theatre.gave_up,
        "rounds_retried": sum(bool(record.attempt) for record in records),
        "replies_missing": sum(len(record.asked) - len(record.accepted) for record in records),
        "median_round_seconds": statistics.median(record.seconds for record in records),
        "asked_share": setting.fraction,
        "deadline": setting.deadline,
        "poll": setting.poll,
        "seed": setting.seed,
    }


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """Yield a folder with a feature cache of its own, a temporary one if none is given."""
    before = os.environ.get("FEDPROMPT_CACHE")
    with tempfile.TemporaryDirectory(prefix="fedprompt-soak-") as name:
        place = (folder or Path(name)).resolve()
        os.environ |= {"FEDPROMPT_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
        try:
            yield place
        finally:
            del os.environ["FEDPROMPT_CACHE"]
            if before is not None:
                os.environ["FEDPROMPT_CACHE"] = before


def run(setting: Setting, deployment: Deployment) -> dict[str, Any]:
    """Run a deployment to the end of its last round and return the figures."""
    torch.set_num_threads(1)
    deployment.load(deployment.server.run_settings())  # encodes every image once
    planned = kills.plan(setting.rounds, setting.server_kills, setting.site_kills, setting.seed)
    with Theatre(deployment, setting.real, setting.poll, planned, setting.seed) as theatre:
        theatre.play()
    seen = deployment.server.path.parent / "observed.json"
    seen.write_text(json.dumps(theatre.observed()), encoding="utf-8")
    return conclude(setting, deployment, theatre)


def conclude(setting: Setting, deployment: Deployment, theatre: Theatre) -> dict[str, Any]:
    """Return all figures of a run that is over."""
    records = replay.read(deployment)
    found = figures(setting, theatre, records)
    log.info("replaying: %s", json.dumps(found))
    differs = replay.Replay(deployment).first_difference(records)
    return found | {"resumed_identical": differs is None, "first_difference": differs}


def tell(found: dict[str, Any]) -> None:
    """Print the figures for a person."""
    names = ("rounds", "rounds_lost", "kills", "resumed_identical", "bytes_up", "seconds")
    title = f"{found['nodes']} sites, {found['real_nodes']} of them real"
    show(title, ("figure", "value"), [(name, found[name]) for name in names])
    header = ("process", "long lives", "MB after warm-up", "MB at the end", "growth", "largest")
    kinds = {kind: Growth(**told) for kind, told in found["memory_by_kind"].items()}
    rows = [
        (kind, g.lives, g.early / 1e6, g.late / 1e6, g.relative, g.worst)
        for kind, g in kinds.items()
    ]
    show("Memory of each kind of process", header, rows)


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=1)] = Setting.rounds,
    nodes: Annotated[int, typer.Option(min=2, help="Sites in all.")] = Setting.nodes,
    real: Annotated[int, typer.Option(min=1, help="Real ones: 0.8 GB each.")] = Setting.real,
    server_kills: Annotated[int, typer.Option(min=0)] = Setting.server_kills,
    site_kills: Annotated[int, typer.Option(min=0)] = Setting.site_kills,
    fraction: Annotated[float, typer.Option(help="Asked in a round.")] = Setting.fraction,
    deadline: Annotated[float, typer.Option(help="Seconds of an exchange.")] = Setting.deadline,
    poll: Annotated[float, typer.Option(help="Seconds, of simulated sites.")] = Setting.poll,
    seed: Annotated[int, typer.Option(min=0)] = Setting.seed,
    folder: Annotated[Path | None, typer.Option(help="Kept; a new one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Run a deployment for many rounds while its processes are killed."""
    setting = Setting(
        rounds=rounds, nodes=nodes, real=min(real, nodes), server_kills=server_kills,
        site_kills=site_kills, fraction=fraction, deadline=deadline, poll=poll, seed=seed,
    )  # fmt: skip
    logs.configure(None, as_json=False)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every process of the deployment
    with workplace(folder) as place:
        found = run(setting, make(place, setting.nodes, setting.settings()))
    tell(found)
    if as_json:
        typer.echo(json.dumps({**found, "machine": machine()}))


if __name__ == "__main__":
    app()
