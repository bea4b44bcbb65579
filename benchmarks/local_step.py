"""One local training step against CoOp's, and what it takes in memory.

ViT-B/32 with random weights (values do not matter for speed or memory), batch 32, 16 context
tokens, one thread. The reference encodes the images and all 77 tokens of every class in each step.
Both are run in turn in one process; times are medians of CPU time.
"""

import gc
import statistics
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.console import run, show
from fedprompt.backbone import frozen_linear
from fedprompt.backbone.class_encoder import PLAIN, ClassEncoder, Speedups, class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.prompts.class_texts import placed_tokens
from fedprompt.prompts.words import Layout

BATCH, LENGTH = 32, 16
# the class names of CIFAR-100: one hundred real ones, the longest prompt is 22 tokens
CIFAR_100 = """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl,
boy, bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox,
girl, hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion, lizard, lobster, man,
maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, orchid, otter, palm tree,
pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road,
rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel,
streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger, tractor, train,
trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm"""
STEPS = {
    "cached images, 77 tokens": PLAIN,
    "+ cut at the longest end of text": Speedups(share_prefix=False, chunk=0),
    "+ shared prefix": Speedups(share_suffixes=False, chunk=0),
    "+ shared suffixes": Speedups(),
}
SHARED, PACKED = "+ shared suffixes", "+ weights laid out once (oneDNN)"
Step = Callable[[], Tensor]


def names(count: int) -> list[str]:
    """Return real class names: CIFAR-100's, or the first lemmas of ImageNet's."""
    if count <= 100:
        return CIFAR_100.replace("\n", " ").split(", ")[:count]
    info = ImageNetInfo()
    return [info.index_to_description(i).partition(",")[0] for i in range(count)]


class Bench:
    """Hold a random ViT-B/32, a batch of images and the context that is trained."""

    def __init__(self, classes: int) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        model = open_clip.create_model("ViT-B-32").eval()
        tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self.clip = FrozenClip(model, tokenizer, Preprocessing())
        self.tokens, _ = placed_tokens(self.clip, names(classes), "{}.", Layout(LENGTH))
        self.images = torch.randn(BATCH, 3, 224, 224)
        self.labels = torch.randint(classes, (BATCH,))
        self.context = nn.Parameter(0.02 * torch.randn(1, LENGTH, self.clip.text.width))
        with torch.no_grad():
            self.features = self.clip.encode_image(self.images)

    def encoder(self, speedups: Speedups) -> ClassEncoder:
        """Return the text tower with some speed-ups, on torch's own matrix product."""
        with unittest.mock.patch.object(frozen_linear, "packing_pays", return_value=False):
            encoder = class_encoder(self.clip, self.tokens, LENGTH, speedups)
        self.clip.text._frozen = None  # so that the next encoder lays its weights out anew
        return encoder

    def packed_encoder(self) -> ClassEncoder:
        """Return the text tower as sites run it."""
        return class_encoder(self.clip, self.tokens, LENGTH)

    def step(self, encoder: ClassEncoder, *, images: bool = False) -> Tensor:
        """Run one step and return the gradient of the context."""
        self.context.grad = None
        features = self.clip.encode_image(self.images) if images else self.features
        vectors = F.normalize(encoder(self.context), dim=-1)
        logits = self.clip.logit_scale * F.normalize(features, dim=-1) @ vectors.T
        F.cross_entropy(logits, self.labels).backward()
        return self.context.grad.clone()


def in_turn(steps: dict[str, Step], repeats: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Run steps alternately; return median CPU and wall seconds of each."""
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(max(repeats.values())):
        for name, step in steps.items():
            if turn < repeats[name]:
                started = time.process_time(), time.perf_counter()
                step()
                cpu[name].append(time.process_time() - started[0])
                wall[name].append(time.perf_counter() - started[1])
    return {n: (statistics.median(cpu[n]), statistics.median(wall[n])) for n in steps}


def speed() -> dict[str, float]:
    """Compare every stage with the reference at 100 classes."""
    bench = Bench(100)
    reference = "images and 77 tokens (CoOp)"
    plain = bench.encoder(PLAIN)
    steps: dict[str, Step] = {reference: lambda: bench.step(plain, images=True)}
    encoders = {name: bench.encoder(speedups) for name, speedups in STEPS.items()}
    encoders[PACKED] = bench.packed_encoder()
    for name, encoder in encoders.items():
        steps[name] = lambda encoder=encoder: bench.step(encoder)
    expected = bench.step(plain, images=True)
    errors = {
        name: float((step() - expected).norm() / expected.norm()) for name, step in steps.items()
    }
    repeats = {name: 3 if i < 2 else 9 for i, name in enumerate(steps)}
    times = in_turn(steps, repeats)
    ratios = {name: times[reference][0] / cpu for name, (cpu, _) in times.items()}
    walls = {name: times[reference][1] / wall for name, (_, wall) in times.items()}
    rows = [(name, ratios[name], walls[name], errors[name]) for name in steps]
    show(
        "Local step, ViT-B/32, batch 32, 100 classes, 16 context tokens, one thread",
        ("step", "speed (CPU time)", "speed (wall)", "relative gradient error"),
        rows,
    )
    return {
        "speedup": ratios[PACKED],
        "speedup_wall": walls[PACKED],
        "speedup_without_packing": ratios[SHARED],
        "max_relative_gradient_error": max(errors.values()),
    }


def peak_mb(classes: int, speedups: Speedups) -> float:
    """Return the memory of one step above the model's, measured in this process."""
    bench = Bench(classes)
    encoder = class_encoder(bench.clip, bench.tokens, LENGTH, speedups)
    warm = class_encoder(bench.clip, bench.tokens[:2], LENGTH, speedups)
    warm(bench.context).sum().backward()  # loads libraries, allocates their buffers
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    bench.step(encoder)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def memory() -> dict[str, float]:
    """Measure the peak of a step in processes of their own."""
    cases = {
        "100, 77 tokens": (100, "plain"),
        "100": (100, "all"),
        "500": (500, "all"),
        "1000": (1000, "all"),
        "1000, not in chunks": (1000, "whole"),
    }
    found = {}
    for name, (classes, kind) in cases.items():
        program = f"from benchmarks.local_step import *; print(peak_mb({classes}, KINDS[{kind!r}]))"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = float(done.stdout.split()[-1])
    show("Peak memory of a step above the model", ("classes", "MB"), list(found.items()))
    return {f"peak_mb_{n}_classes": found[n] for n in ("100", "500", "1000")}


KINDS = {"plain": PLAIN, "all": Speedups(), "whole": Speedups(chunk=0)}


def measure() -> dict[str, float]:
    """Measure speed and memory."""
    return speed() | memory()


if __name__ == "__main__":
    run(measure)
