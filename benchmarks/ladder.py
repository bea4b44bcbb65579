"""What each step of an export costs and gains: ``python -m benchmarks.ladder [--output PAGE]``.

The embedded backbone on labelled images of Fashion-MNIST, and ViT-B/32 and ViT-B/16 with random
weights (of which only size and speed mean something) on some of the same images. All graphs run in
turn with open_clip eager in one process, on one thread; speeds are ratios of median CPU times.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import onnx
import torch
import typer

from benchmarks import peers
from benchmarks.console import machine, markdown
from benchmarks.pairs import Ratio, Run, in_turn, ratios
from benchmarks.subject import Subject, embedded_clip, open_session, random_clip
from export.graph.builder import BATCH, Graph
from export.graph.fuse import Features, fuse, write_head
from export.graph.traced_tower import FEATURES, trace_tower
from export.parity.compare import Parity
from export.precision import Recipe
from export.precision.int8 import quantise_dynamically
from export.precision.rewrite import head_nodes, split_attention
from export.runtime.session import Session
from fedprompt.storage import write_atomic

TRACED, PIXELS_TOO = "torch.onnx.export", "portable, int8-dynamic, pixels too"
RECIPES = (
    Recipe("portable", "fp32"),
    Recipe("ort", "fp32"),
    Recipe("portable", "fp16"),
    Recipe("ort", "fp16"),
    Recipe("portable", "int8-static"),
    Recipe("ort", "int8-dynamic"),
    Recipe("portable", "int8-dynamic"),
)
BATCHES = (1, 16)
MANY, FEW = 2_000, 16  # images of a trained and of a random backbone
HEADER = (
    "step", "MB", "operators", "speed, 1 image", "speed, 16", "same first class",
    "largest logit difference", "accuracy, points",
)  # fmt: skip
Row = tuple[object, ...]


class Rung(NamedTuple):
    """Hold one step's graph, opened, and how it answers."""

    session: Session
    size: int  # bytes
    nodes: int
    parity: Parity


def graphs(subject: Subject) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Iterate over name, precision and graph of every step."""
    yield TRACED, "fp32", traced(subject)
    for recipe in RECIPES:
        name = f"{recipe.flavour}, {recipe.rewrite}"
        yield name, recipe.precision, subject.graph(recipe)
    yield PIXELS_TOO, "int8", with_short_pixels(subject)


def traced(subject: Subject) -> onnx.ModelProto:
    """Return the classifier as torch exports the tower, behind the same head."""
    graph, clip, constants = Graph(), subject.clip, subject.constants
    size = clip.preprocessing.size
    tower = trace_tower(clip.model.visual, clip.preprocessing)
    graph.adopt(tower, {FEATURES: (BATCH, subject.joint)})
    write_head(graph, Features(name=FEATURES), constants, clip.logit_scale, clip.logit_bias)
    return graph.model((BATCH, size, size, 3), ["logits", "image_embeds"])


def with_short_pixels(subject: Subject) -> onnx.ModelProto:
    """Return the graph in int8 with the product over the pixels, which fedprompt leaves in fp32."""
    model = split_attention(fuse(subject.clip, subject.constants, "portable"))
    return quantise_dynamically(model, head_nodes(model))


def climb(subject: Subject, seconds: float) -> list[Row]:
    """Measure every step of one backbone, ``seconds`` of CPU for each batch."""
    rungs: dict[str, Rung] = {}
    for name, precision, model in graphs(subject):
        session = open_session(model)
        parity = subject.parity(session, precision)
        rungs[name] = Rung(session, model.ByteSize(), len(model.graph.node), parity)
    speeds = [speed(subject, rungs, batch, seconds) for batch in BATCHES]
    return [row(name, rung, [found[name] for found in speeds]) for name, rung in rungs.items()]


def speed(subject: Subject, rungs: dict[str, Rung], batch: int, seconds: float) -> dict[str, Ratio]:
    """Return how many times faster than eager each step is."""
    images = subject.real.pictures[:batch]
    rival = peers.eager(subject.clip, subject.constants)
    runs: dict[str, Run] = {"eager": partial(rival, subject.floats(images))}
    for name, rung in rungs.items():
        runs[name] = partial(rung.session.run, ["logits"], {"images": images})
    return ratios(in_turn(runs, seconds), "eager")


def row(name: str, rung: Rung, speeds: Sequence[Ratio]) -> Row:
    """Return one line of the table."""
    parity = rung.parity
    lost = "-" if parity.loss is None else f"{0 - 100 * parity.loss:+.2f}"
    return (
        name, f"{rung.size / 1e6:.1f}", rung.nodes, *map(str, speeds),
        f"{parity.agreement:.2%}", f"{parity.largest:.2g}", lost,
    )  # fmt: skip


def subjects() -> Iterator[tuple[str, Subject]]:
    """Iterate over title and backbone."""
    yield "embedded", Subject(embedded_clip(), MANY)
    for name in ("ViT-B/32", "ViT-B/16"):
        clip = random_clip(name.replace("/", "-"))
        yield f"{name}, random weights", Subject(clip, FEW, trained=False)


def page(tables: dict[str, list[Row]]) -> str:
    """Return the tables as a page."""
    words = {"machine": machine(), "runtime": version("onnxruntime"), "many": MANY, "few": FEW}
    lines = [INTRODUCTION.format(**words)]
    return "\n".join([*lines, *(section(title, rows) for title, rows in tables.items())])


def section(title: str, rows: list[Row]) -> str:
    """Return one backbone's part of the page."""
    return f"## {title}\n\n{markdown(HEADER, rows)}"


INTRODUCTION = """# The ladder

What each step of `fedprompt export` costs and gains. Written by
`python -m benchmarks.ladder --output docs/ladder.md` on {machine} with ONNX Runtime
{runtime}; one thread, open_clip eager with its class vectors cached in turn with all graphs, ratios
of median CPU times, and in brackets the quartiles of the ratios within single rounds. Every graph
takes bytes and normalises them; eager is given normalised floats. All were compared with torch on
test images of Fashion-MNIST ({many:,} for the embedded backbone, {few} for the others, whose
weights are random: of them only size and speed mean something); int8-static took its ranges from 64
training images. `ort` graphs have ONNX Runtime's fused operators, `portable` ones those of opset 20
only. int8-dynamic measures its inputs' ranges on each batch, so that an answer depends a little on
the images beside it. The head and the product over the pixels stay in fp32 in int8; the last row
shows what the latter in int8 would change.
"""


def main(
    output: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of CPU, for each batch.")] = 40.0,
) -> None:
    """Measure every step on all backbones."""
    torch.set_num_threads(1)
    tables: dict[str, list[Row]] = {}
    for title, subject in subjects():
        tables[title] = climb(subject, seconds)
        typer.echo(section(title, tables[title]))
    if output is not None:
        write_atomic(output, page(tables).encode())
    if as_json:
        typer.echo(json.dumps({**tables, "machine": machine()}))


if __name__ == "__main__":
    typer.run(main)
