"""What each step of an export costs and gains: ``python -m benchmarks.ladder [--output PAGE]``.

The embedded backbone on labelled images of Fashion-MNIST, and ViT-B/32 with random weights (of
which only size and speed mean something) on the same images. open_clip runs in turn with each graph
in one process, on one thread; speeds are ratios of median CPU times.
"""

import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import onnx
import open_clip
import torch
import typer

from benchmarks.console import machine, show
from export.answers import answers
from export.constants import Constants
from export.fuse import fuse
from export.graph import BATCH, Graph
from export.head import Features, write_head
from export.ladder import Rung, speed
from export.load import RealImages, real_images
from export.parity import compare
from export.precision.chain import rewrite_to
from export.reference import reference_logits
from export.runtime.providers import CPU
from export.runtime.session import start
from export.targets import Recipe
from export.traced import FEATURES, trace_tower
from export.types import Answers
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.config import BackboneConfig
from fedprompt.backbone.load import load_backbone
from fedprompt.data.config import DataConfig
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.data.preprocess import Preprocessing
from fedprompt.prompts.template import zero_shot_vectors

RECIPES = (
    Recipe("portable", "fp32"),
    Recipe("ort", "fp32"),
    Recipe("portable", "fp16"),
    Recipe("ort", "fp16"),
    Recipe("portable", "int8-static"),
    Recipe("ort", "int8-dynamic"),
    Recipe("portable", "int8-dynamic"),
)
BATCHES = {1: 15, 16: 3}  # images at a time: how often
HEADER = (
    "step", "MB", "operators", "speed, 1 image", "speed, 16", "same first class",
    "largest logit difference", "accuracy, points",
)  # fmt: skip
Row = tuple[object, ...]


class Bench:
    """Hold a CLIP, its class vectors, images and torch's answers."""

    def __init__(self, clip: FrozenClip, count: int) -> None:
        self.clip = clip
        vectors = zero_shot_vectors(clip, CLASSES, DataConfig().template)
        self.constants = Constants(class_vectors=vectors.detach().numpy())
        self.real: RealImages = real_images({}, count, clip.preprocessing, CLASSES)
        self.expected: Answers = reference_logits(clip, self.constants, self.real.pictures)

    def graphs(self) -> Iterator[tuple[str, str, onnx.ModelProto]]:
        """Iterate over name, precision and graph of every step."""
        yield "torch.onnx.export", "fp32", self._traced()
        for recipe in RECIPES:
            plain = fuse(self.clip, self.constants, recipe.flavour)
            model = rewrite_to(plain, recipe.rewrite, self.real.calibration)
            yield f"{recipe.flavour}, {recipe.rewrite}", recipe.precision, model

    def row(self, name: str, precision: str, model: onnx.ModelProto) -> Row:
        """Measure one graph."""
        session = start(model.SerializeToString(), [CPU], threads=1)
        found = answers(session, self.real.pictures)
        parity = compare(found, self.expected, precision, self.real.labels)
        rung = Rung.of(name, parity, size=model.ByteSize(), nodes=len(model.graph.node))
        speeds = []
        for batch, repeats in BATCHES.items():
            images = self.real.pictures[:batch]
            speeds.append(
                speed(
                    lambda part=images: reference_logits(self.clip, self.constants, part),  # type: ignore[misc]
                    lambda part=images: session.run(["logits"], {"images": part}),  # type: ignore[misc]
                    repeats=repeats,
                    clock=time.process_time,
                )
            )
        lost = f"{0 - 100 * (rung.loss or 0):+.2f}"
        return (
            name, f"{rung.size / 1e6:.1f}", rung.nodes, *(f"{found:.2f}" for found in speeds),
            f"{rung.agreement:.2%}", f"{rung.largest:.2g}", lost,
        )  # fmt: skip

    def _traced(self) -> onnx.ModelProto:
        """Return the classifier as torch exports the tower, behind the same head."""
        graph, pre = Graph(), self.clip.preprocessing
        joint = self.constants.class_vectors.shape[1]
        graph.adopt(trace_tower(self.clip.model.visual, pre), {FEATURES: (BATCH, joint)})
        scale, bias = self.clip.logit_scale, self.clip.logit_bias
        write_head(graph, Features(name=FEATURES), self.constants, scale, bias)
        return graph.model((BATCH, pre.size, pre.size, 3), ["logits", "image_embeds"])


def backbones() -> Iterator[tuple[str, FrozenClip, int]]:
    """Iterate over title, CLIP and number of images."""
    yield "embedded", load_backbone(BackboneConfig(name="embedded", device="cpu")), 500
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32").eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    yield "ViT-B/32, random weights", FrozenClip(model, tokenizer, Preprocessing()), 16


def page(tables: dict[str, list[Row]]) -> str:
    """Return the tables as a page."""
    lines = [INTRODUCTION.format(machine=machine(), runtime=version("onnxruntime"))]
    for title, rows in tables.items():
        lines += [f"## {title}", "", _line(HEADER), _line(["---"] * len(HEADER))]
        lines += [*(_line(row) for row in rows), ""]
    return "\n".join(lines)


def _line(cells: Row | list[str]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


INTRODUCTION = """# The ladder

What each step of `fedprompt export` costs and gains. Written by
`python -m benchmarks.ladder --output docs/ladder.md` on {machine} with ONNX Runtime
{runtime}; one thread, open_clip eager with
its class vectors cached in turn with each graph, ratios of median CPU times. Every graph takes
uint8 images and was compared with torch on test images of Fashion-MNIST (500 for the embedded
backbone, 16 for ViT-B/32, whose weights are random: of it only size and speed mean something).
`ort` graphs have ONNX Runtime's fused
operators, `portable` ones those of opset 20 only. int8-dynamic measures its inputs' ranges on each
batch, so that an answer depends a little on the images beside it.
"""


def main(
    output: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Measure every step on both backbones."""
    torch.set_num_threads(1)
    tables: dict[str, list[Row]] = {}
    for title, clip, count in backbones():
        bench = Bench(clip, count)
        tables[title] = [bench.row(*graph) for graph in bench.graphs()]
        show(title, HEADER, tables[title])
    if output is not None:
        output.write_text(page(tables))
    if as_json:
        typer.echo(json.dumps({**tables, "machine": machine()}))


if __name__ == "__main__":
    typer.run(main)
