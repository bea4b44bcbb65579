"""What a federation gains over zero-shot CLIP: the demo's run at three seeds.

Seeds draw the images, their division among ten Dirichlet(0.3) sites, the prompt's start and the
order of training. Accuracy is on test images that no site holds, in per cent.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.console import run, show
from benchmarks.intervals import half_width
from client.tuning.evaluate import evaluate
from fedprompt.artefact import Artefact
from fedprompt.experiments.setup import open_experiment
from fedprompt.experiments.simulation import run_local
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.template import Template
from fedprompt.settings.run_config import RunConfig, defaults, load_flat
from fedprompt.settings.section import Flat
from server.rounds.progress import display

SEEDS = (0, 1, 2)
DEMO = Path(__file__).parents[1] / "examples" / "demo.toml"
ZERO_SHOT = "zero-shot"
CASES: dict[str, Flat] = {  # each at its best rate: docs/benchmarks.md has the others
    "dip": {},
    "dip-fixed": {"prompt.method": "dip-fixed", "fit.learning_rate": 0.05},
    "coop": {"prompt.method": "coop"},
}


@dataclass(frozen=True)
class Outcome:
    """Hold what one case reached at one seed.

    Attributes
    ----------
    accuracy
        In per cent.
    images
        That it is measured on.
    sent
        Numbers that a site sends each round.
    """

    accuracy: float
    images: int
    sent: int


Outcomes = Mapping[str, Outcome]  # by case


def federate(settings: Flat, folder: Path) -> Artefact:
    """Run one federation and return its artefact."""
    settings = settings | {"server.output": str(folder), "server.evaluate_every": 0}
    with display(int(settings["server.rounds"]), Console(stderr=True)) as shown:
        run_local(RunConfig.parse(settings), shown)
    return Artefact.load(folder / "artefact")


def outcomes(seed: int) -> dict[str, Outcome]:
    """Return what zero-shot CLIP and every case reach at one seed."""
    seeds = {f"{name}.seed": seed for name in ("data", "prompt", "server")}
    settings = defaults() | load_flat(DEMO) | seeds
    bench = open_experiment(RunConfig.parse(settings))
    images, labels = bench.encode(bench.test)
    template = Template(bench.clip, bench.test.classes, bench.data.template)
    prompts, sent = {ZERO_SHOT: template}, {ZERO_SHOT: 0}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, changes) in enumerate(CASES.items()):
            artefact = federate(settings | changes, Path(folder) / str(number))
            prompts[name] = from_artefact(artefact, bench.clip)
            sent[name] = artefact.metadata["sent"]
    scores = {name: evaluate(prompt, images, labels) for name, prompt in prompts.items()}
    return {
        name: Outcome(100 * score.correct / score.count, score.count, sent[name])
        for name, score in scores.items()
    }


def figures(runs: Sequence[Outcomes]) -> dict[str, float]:
    """Return means over the seeds, their 95 % intervals, and how dip stands to the others."""
    found: dict[str, float] = {"seeds": len(runs), "images": runs[0]["dip"].images}
    for name in runs[0]:
        values = [case[name].accuracy for case in runs]
        found |= with_interval(name.replace("-", "_"), values)
    for name, other in (("dip_behind_coop", "coop"), ("dip_behind_dip_fixed", "dip-fixed")):
        found |= with_interval(name, [case[other].accuracy - case["dip"].accuracy for case in runs])
    return found | {
        "numbers_up_ratio": runs[0]["dip"].sent / runs[0]["coop"].sent,
        "least_gain_points": min(case["dip"].accuracy - case[ZERO_SHOT].accuracy for case in runs),
    }


def with_interval(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return a mean, and half the width of its 95 % interval."""
    return {name: statistics.mean(values), f"{name}_half_width": half_width(values)}


def measure() -> dict[str, float]:
    """Run every case at every seed."""
    runs = [outcomes(seed) for seed in SEEDS]
    found, rows = figures(runs), []
    for name, first in runs[0].items():
        values = [case[name].accuracy for case in runs]
        told = f"{statistics.mean(values):.1f} ± {half_width(values):.1f}"
        rows.append((name, first.sent, *(f"{value:.1f}" for value in values), told))
    header = ("method", "numbers up", *(f"seed {seed}" for seed in SEEDS), "mean, 95 % interval")
    show(f"Accuracy on {found['images']:,} test images, %", header, rows)
    return found


if __name__ == "__main__":
    run(measure)
