"""What a federation gains over zero-shot CLIP: the demo's run at three seeds.

Seeds draw the images, their division among ten Dirichlet(0.3) sites, the prompt's start and the
order of training. Accuracy is on 1,000 test images that no site holds.
"""

import statistics
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.console import run, show
from client.evaluate import evaluate
from client.workbench import open_workbench
from fedprompt.artefact import Artefact
from fedprompt.config import Flat, defaults, load
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.template import Template
from server.progress import display
from server.simulate import run_local

SEEDS = (0, 1, 2)
DEMO = Path(__file__).parents[1] / "examples" / "demo.toml"
CASES: dict[str, Flat] = {
    "dip": {},
    "dip, factors": {"server.rule": "factors"},
    "dip, shared-basis": {"server.rule": "shared-basis"},
    "dip, fresh-basis": {"server.rule": "fresh-basis"},
    "coop": {"prompt.method": "coop"},
}


def federate(settings: Flat, folder: Path) -> Artefact:
    """Run one federation and return its artefact."""
    settings = settings | {"server.output": str(folder), "server.evaluate_every": 0}
    with display(int(settings["server.rounds"]), Console(stderr=True)) as shown:
        run_local(settings, shown)
    return Artefact.load(folder / "artefact")


def accuracies(seed: int) -> dict[str, float]:
    """Return the test accuracy of zero-shot CLIP and of every case at one seed."""
    seeds = {f"{name}.seed": seed for name in ("data", "prompt", "server")}
    settings = defaults() | load(DEMO) | seeds
    bench = open_workbench(settings)
    images, labels = bench.encode(bench.test)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, changes) in enumerate(CASES.items()):
            artefact = federate(settings | changes, Path(folder) / str(number))
            score = evaluate(from_artefact(artefact, bench.clip), images, labels)
            found[name] = score.correct / score.count
    template = Template(bench.clip, bench.test.classes, bench.data.template)
    score = evaluate(template, images, labels)
    return {"zero-shot": score.correct / score.count, **found}


def measure() -> dict[str, float]:
    """Run every case at every seed."""
    runs = [accuracies(seed) for seed in SEEDS]
    rows, figures = [], {}
    for name in runs[0]:
        values = [100 * found[name] for found in runs]
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        rows.append((name, *(f"{v:.1f}" for v in values), f"{mean:.1f} ± {deviation:.1f}"))
        key = name.replace(", ", "_").replace("-", "_")
        figures |= {f"{key}_mean": mean, f"{key}_std": deviation}
    show("Accuracy on 1,000 test images, %", ("method", *map(str, SEEDS), "mean ± std"), rows)
    gains = [found["dip"] - found["zero-shot"] for found in runs]
    return figures | {"least_gain_points": 100 * min(gains), "seeds": len(SEEDS)}


if __name__ == "__main__":
    run(measure)
