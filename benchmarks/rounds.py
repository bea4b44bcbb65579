"""Seconds of a simulated round: ``python -m benchmarks.rounds [--json]``.

Three rounds are run in turn in one process, on the in-process grid, one thread each:

ours       the real ServerApp's round loop (gate, merge by product and SVD, record and checkpoint
           with their fsync) over the real ClientApp, which trains on cached features
do-nothing Flower's own FedAvg over a ClientApp that returns the arrays it got, of equal size
compute    the same sites' local fits, called in a plain loop without any messages

``ratio_N`` is the median over the turns of ours / (do-nothing + compute) in wall time, where the
two others are the means of their runs just before and just after ours, because a machine's speed
drifts; ``ratio_cpu_N`` is the same of CPU time, which a busy machine disturbs less. A site has one
batch of 32 images and takes one step on it: the least work a round can have, so the ratio is
the worst case. Nobody evaluates in the timed rounds (``server.evaluate_every = 0`` evaluates round
0 and the last round, neither is timed), because the other two do not either. Features are random
vectors put in the cache beforehand: their values do not change the work.
"""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.console import run, show
from client.app import app as client_app
from client.features.encode import store_key
from client.features.feature_store import FeatureStore
from client.site import Site, simulated
from client.tuning.fit import fit
from fedprompt.backbone.load import load_backbone
from fedprompt.data.load import load as load_images
from fedprompt.prompt_state import PromptState
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat, section
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.rounds.task_builder import Tuning

CLASSES = 10
IMAGES, HOLDOUT = 40, 0.2  # of a site; 32 are left to train on
TURNS = {10: 15, 100: 9, 1000: 3}  # timed rounds by number of clients

Seconds = tuple[float, float]  # wall and CPU time


@dataclass(frozen=True)
class Turn:
    """Hold the time of one round of each kind."""

    ours: Seconds
    nothing: Seconds
    compute: Seconds

    def ratio(self, clock: int) -> float:
        """Return ours over the sum of the two others; clock 0 is wall, 1 is CPU."""
        return self.ours[clock] / (self.nothing[clock] + self.compute[clock])


def timed(work: Callable[[], object]) -> Seconds:
    """Run something once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def settings(folder: Path, clients: int, rounds: int) -> Flat:
    """Return the default configuration over images in ``folder``."""
    own: Flat = {
        "data.source": str(folder / "images"),
        "data.partitioner": "iid",
        "data.holdout": HOLDOUT,
        "data.test_share": 0.0,
        "data.clients": clients,
        "server.rounds": rounds,
        "server.evaluate_every": 0,
        "server.output": str(folder / "run"),
    }
    return defaults() | own


def write_images(folder: Path, count: int) -> None:
    """Write distinct tiny images, ten classes in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 64), dtype=np.uint8)
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    for i, values in enumerate(pixels):
        path = folder / f"class {i % CLASSES}" / f"{i:06d}.pgm"
        path.write_bytes(b"P5 8 8 255\n" + values.tobytes())


def fill_cache(flat: Flat) -> None:
    """Put a random feature of every image in the cache, as if it had been encoded."""
    clip = load_backbone(section(flat, "backbone", BackboneConfig))
    images, _ = load_images(section(flat, "data", DataConfig))
    width = clip.encode_text(clip.tokenize(["x"])).shape[1]
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((len(images), width), dtype=np.float32)
    digests = [images.digest(i) for i in range(len(images))]
    FeatureStore(store_key(clip)).write(dict(zip(digests, vectors, strict=True)))


@contextmanager
def prepared(clients: int, rounds: int) -> Iterator[Flat]:
    """Yield the configuration of a run whose images and features lie in a temporary folder."""
    before = os.environ.get("FEDPROMPT_CACHE")
    with tempfile.TemporaryDirectory(prefix="fedprompt-rounds-") as name:
        os.environ["FEDPROMPT_CACHE"] = str(Path(name, "cache"))
        try:
            write_images(Path(name, "images"), clients * IMAGES)
            flat = settings(Path(name), clients, rounds)
            fill_cache(flat)
            yield flat
        finally:
            del os.environ["FEDPROMPT_CACHE"]
            if before is not None:
                os.environ["FEDPROMPT_CACHE"] = before


def do_nothing() -> ClientApp:
    """Return an app that sends the arrays back as they came."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def nothing_rounds(grid: LocalGrid, clients: int, arrays: PromptState) -> Iterator[None]:
    """Run one round of Flower's FedAvg, as its own ``start`` does, each time it is asked."""
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    record, number = ArrayRecord({name: Array(array) for name, array in arrays.items()}), 0
    while True:
        number += 1
        messages = strategy.configure_train(number, record, ConfigRecord(), grid)
        replies = grid.send_and_receive(messages, timeout=3600)
        merged, _ = strategy.aggregate_train(number, replies)
        assert merged is not None
        record = merged
        yield


def compute(sites: list[Site]) -> None:
    """Fit every site's prompt once, with nothing around it."""
    for site in sites:
        fit(site.prompt, site.train_images, site.train_labels, site.config, seed=1)


def others(nothing: Iterator[None], sites: list[Site]) -> tuple[Seconds, Seconds]:
    """Time a round of nothing and one of pure compute."""
    return timed(lambda: next(nothing)), timed(lambda: compute(sites))


def between(before: Seconds, after: Seconds) -> Seconds:
    """Return the mean of two runs."""
    return (before[0] + after[0]) / 2, (before[1] + after[1]) / 2


def turns(clients: int, count: int) -> list[Turn]:
    """Run all three kinds of round in turn, after one of each that warms up."""
    rounds = count + 2  # one to warm up, and the last one, which evaluates, is not run
    with (
        prepared(clients, rounds) as flat,
        LocalGrid(client_app, clients, flat) as grid,
        LocalGrid(do_nothing(), clients, flat) as idle,
    ):
        tuning = Tuning(config := RunConfig.parse(flat))
        ours = Rounds(grid, tuning.task(), tuning.server, tuning.sites).committed()
        next(ours)  # sites load their images and join, round 0 is evaluated
        sites = [simulated(config, partition, clients) for partition in range(clients)]
        nothing = nothing_rounds(idle, clients, tuning.prompt.arrays())
        next(ours), others(nothing, sites)
        own, around = [], [others(nothing, sites)]
        for _ in range(count):
            own.append(timed(lambda: next(ours)))
            around.append(others(nothing, sites))
    return [
        Turn(mine, between(before[0], after[0]), between(before[1], after[1]))
        for mine, before, after in zip(own, around, around[1:], strict=False)
    ]


def summary(clients: int, found: list[Turn]) -> dict[str, float]:
    """Return medians of a number of clients."""
    figures = {
        f"ratio_{clients}": statistics.median(turn.ratio(0) for turn in found),
        f"ratio_cpu_{clients}": statistics.median(turn.ratio(1) for turn in found),
    }
    for kind in ("ours", "nothing", "compute"):
        seconds = statistics.median(getattr(turn, kind)[0] for turn in found)
        figures[f"seconds_{kind}_{clients}"] = seconds
    return figures


def measure(repeats: Mapping[int, int] = TURNS) -> dict[str, float]:
    """Measure every number of clients."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    kinds = ("seconds_ours", "seconds_nothing", "seconds_compute", "ratio", "ratio_cpu")
    figures: dict[str, float] = {}
    for clients, count in repeats.items():
        figures |= summary(clients, turns(clients, count))
    rows = [(n, *[figures[f"{kind}_{n}"] for kind in kinds]) for n in repeats]
    header = ("clients", "ours (s)", "do-nothing (s)", "compute (s)", "ratio", "ratio of CPU time")
    show("A simulated round, one step of 32 images a site, embedded CLIP", header, rows)
    return figures


if __name__ == "__main__":
    run(measure)
