"""What two hostile sites of ten do to accuracy: ``python -m benchmarks.attacks [--json]``.

Ten sites with the embedded backbone tune a prompt on Fashion-MNIST; sites 8 and 9 attack as real
ClientApps (`benchmarks.attackers`), knowing every honest update of the round. Each attack runs
under a robust strategy and under the plain mean, with the gate's clipping off and as by default.
Accuracy is on 2,000 test images; the backdoor's success is the share of test images of other
classes that the trigger turns into its target. Three seeds draw images, division, starts and order;
figures are means, and what an attack costs is the mean of the seeds' own differences.
"""

import logging
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from flwr.app import Context, RecordDict

from benchmarks.attackers import ATTACKS, HOSTILE, SITES, TARGET, hostile_client, triggered
from benchmarks.console import run, show
from client.tuning.evaluate import predict
from fedprompt.artefact import Artefact
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.experiments.setup import Experiment, open_experiment
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from server.app import app as server_app
from server.rounds.local_grid import LocalGrid
from server.run_folder.report.standing_out import standing_out

STRATEGIES: dict[str, Flat] = {
    "plain": {"server.strategy": "fedavg", "server.clip_factor": 0.0},
    "default": {"server.strategy": "fedavg"},
    "robust": {"server.strategy": "multikrum", "server.byzantine": HOSTILE},
}
SETTING: Flat = {
    "data.limit": 2000,
    "data.test_limit": 2000,
    "data.clients": SITES,
    "data.partitioner": "iid",
    "fit.epochs": 3,
    "prompt.method": "dip-fixed",  # attackers send the factors that are nearest to what they want
    "server.rounds": 8,
    "server.evaluate_every": 0,
    "server.quarantine": 0,  # the strategy alone has to bear the attack
}
SEEDS = (0, 1, 2)
BOUND = 3.0  # points that the robust strategy may lose to an attack
PROCESSES = 2


@dataclass(frozen=True)
class Outcome:
    """Hold where one run ended."""

    accuracy: float  # per cent
    success: float  # of the backdoor, per cent
    named: list[int]  # sites that the report says stand out
    seconds: float


Case = tuple[str, str, int]  # attack, strategy, seed
Found = Mapping[Case, Outcome]


def settings(strategy: str, seed: int) -> Flat:
    """Return the configuration of a run."""
    seeds = {f"{name}.seed": seed for name in ("data", "prompt", "server")}
    return defaults() | SETTING | STRATEGIES[strategy] | seeds


def attacked(case: Case) -> Outcome:
    """Run one federation under an attack (none: "clean"), a strategy and a seed."""
    attack, strategy, seed = case
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    began, flat = time.monotonic(), settings(strategy, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        flat |= {"server.output": str(folder)}
        # one configuration for all runs' sites, so that a process builds each site once
        with LocalGrid(hostile_client(attack), SITES, settings("plain", seed)) as grid:
            server_app(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
        accuracy, success = score(Artefact.load(folder / "artefact"), seed)
        named = list(standing_out(RunFolder(folder).records()))
    seconds = time.monotonic() - began
    print(
        f"{attack}, {strategy}, {seed}: {accuracy:.1f} %, {seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return Outcome(accuracy, success, named, seconds)


@cache
def bench(seed: int) -> Experiment:
    """Open the test images once a process."""
    return open_experiment(RunConfig.parse(settings("plain", seed)))


@cache
def test_images(seed: int, with_trigger: bool) -> tuple[EncodedImages, torch.Tensor]:
    """Return the test images, encoded, and labels, plain or with the backdoor's trigger."""
    found = bench(seed)
    if not with_trigger:
        return found.encode(found.test)
    return found.encode(triggered(found.test))


def score(artefact: Artefact, seed: int) -> tuple[float, float]:
    """Return accuracy, and how often the trigger wins, in per cent."""
    prompt = from_artefact(artefact, bench(seed).clip)
    images, labels = test_images(seed, False)
    right = predict(prompt, images).argmax(1) == labels
    images, labels = test_images(seed, True)
    turned = predict(prompt, images).argmax(1)[labels != TARGET] == TARGET
    return 100 * float(right.float().mean()), 100 * float(turned.float().mean())


def measure() -> dict[str, float]:
    """Run every attack under every strategy and seed, two runs at a time."""
    cases = [(a, s, seed) for seed in SEEDS for a in ("clean", *ATTACKS) for s in STRATEGIES]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        found = dict(zip(cases, pool.map(attacked, cases), strict=True))
    title = f"Accuracy on {SETTING['data.test_limit']} test images, {HOSTILE} hostile of {SITES}, %"
    show(title, ("attack", "lost", *STRATEGIES, "stand out in the report"), rows(found))
    show("Trigger turns the image into its target, %", ("", *STRATEGIES), [
        (name, *(spread([o.success for o in runs(found, attack, s)]) for s in STRATEGIES))
        for name, attack in (("backdoor", "backdoor"), ("no attack", "clean"))
    ])  # fmt: skip
    return figures(found)


def runs(found: Found, attack: str, strategy: str) -> list[Outcome]:
    """Return the outcomes of all seeds."""
    return [found[attack, strategy, seed] for seed in SEEDS]


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation over the seeds."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def lost(found: Found, attack: str, strategy: str) -> list[float]:
    """Return the points that an attack costs a strategy, by seed."""
    pairs = zip(runs(found, "clean", strategy), runs(found, attack, strategy), strict=True)
    return [clean.accuracy - attacked.accuracy for clean, attacked in pairs]


def named(found: Found, attack: str, strategy: str) -> str:
    """Return which sites the report names, and at how many seeds."""
    counts = Counter(site for outcome in runs(found, attack, strategy) for site in outcome.named)
    told = [f"{site} ({count} of {len(SEEDS)})" for site, count in sorted(counts.items())]
    return ", ".join(told) or "nobody"


def rows(found: Found) -> list[tuple[str, ...]]:
    """Return one row an attack: what the robust strategy lost, where each run ended, the named."""
    return [
        (
            attack,
            spread(lost(found, attack, "robust")),
            *(spread([o.accuracy for o in runs(found, attack, s)]) for s in STRATEGIES),
            "; ".join(f"{s}: {named(found, attack, s)}" for s in STRATEGIES),
        )
        for attack in ("clean", *ATTACKS)
    ]


def figures(found: Found) -> dict[str, float]:
    """Return every mean accuracy, the backdoor's success, and the most an attack costs."""
    told = {}
    for attack in ("clean", *ATTACKS):
        for strategy in STRATEGIES:
            key = f"{attack}_{strategy}".replace(" ", "_").lower()
            accuracies = [outcome.accuracy for outcome in runs(found, attack, strategy)]
            told |= {key: statistics.mean(accuracies), f"{key}_std": statistics.stdev(accuracies)}
    for name in STRATEGIES:
        costs = {attack: lost(found, attack, name) for attack in ATTACKS}
        told[f"backdoor_success_{name}"] = statistics.mean(
            outcome.success for outcome in runs(found, "backdoor", name)
        )
        told[f"most_lost_points_{name}"] = max(map(statistics.mean, costs.values()))
        told[f"most_lost_points_at_a_seed_{name}"] = max(map(max, costs.values()))
    within = told["most_lost_points_robust"] <= BOUND
    return told | {"within_bound": float(within), "seeds": len(SEEDS)}


if __name__ == "__main__":
    run(measure)
