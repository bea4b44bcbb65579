"""Say each part of a model card: one function a section, each of what was recorded alone."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from export.runtime.metadata import GraphMetadata, without_path
from export.targets.card.markdown import NOT_RECORDED, number, table, text
from export.targets.card.run_record import RunRecord

_MOST_CLASSES = 1000
_HUB = re.compile(r"hf-hub:([\w-][\w.-]*/[\w-][\w.-]*)", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)


class Exported(NamedTuple):
    """Name a classifier file and what it is part of.

    Attributes
    ----------
    name
        Of the file, below the folder that was exported.
    size
        Bytes.
    sha256
        Of its bytes.
    open_vocabulary
        Its classes can be changed where it is deployed.
    """

    name: str
    size: int
    sha256: str
    open_vocabulary: bool


def front_matter(file: Exported, backbone: Mapping[str, Any], method: str) -> str:
    """Return the YAML head as hubs of models read it; no licence, for none is recorded."""
    task = "zero-shot-image-classification" if file.open_vocabulary else "image-classification"
    lines = ["library_name: fedprompt", f"pipeline_tag: {task}"]
    if hub := _HUB.fullmatch(str(backbone.get("name"))):
        lines.append(f'base_model: "{hub[1]}"')
    tags = ["onnx", "clip", *([method] if _WORD.fullmatch(method) else [])]
    lines += ["tags:", *(f'- "{tag}"' for tag in tags)]
    return "".join(f"{line}\n" for line in ("---", *lines, "---"))


def of_file(file: Exported, metadata: GraphMetadata) -> str:
    """Return what the file is, takes and answers."""
    pre, count = metadata.preprocessing, len(metadata.classes)
    fitted = f"resized ({text(pre.resize_mode)}, {text(pre.interpolation)})"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    size = pre.size
    rows = {
        "file": f"{text(file.name)}, {file.size:,} bytes",
        "SHA-256": text(file.sha256),
        "written by": f"fedprompt {text(metadata.version)}",
        "precision": text(metadata.precision),
        "operators": f"{text(metadata.flavour)}, opset {number(metadata.opset, '{:.0f}')}",
        "input": f"`images`, uint8 [batch, {size}, {size}, 3], RGB, {fitted}",
        "normalisation": f"inside the graph: mean {mean}; standard deviation {std}",
        "output": f"`logits` [batch, {count}]; probabilities are their softmax",
    }
    if file.open_vocabulary:
        rows["as deployed"] = "`bundle.json` says what is served; this card, what was exported"
    return f"## File\n\n{table(('', ''), rows.items())}"


def of_model(metadata: GraphMetadata, artefact: Mapping[str, Any]) -> str:
    """Return which CLIP and which prompt were folded together."""
    name, tag = (metadata.backbone.get(key, "") for key in ("name", "pretrained"))
    name = without_path(name)  # of files of older releases, too
    rows = {
        "backbone": text(f"{name} {tag}"),
        "backbone, SHA-256": text(metadata.backbone.get("sha256", NOT_RECORDED)),
        "tokenizer, SHA-256": text(metadata.tokenizer_sha256),
        "prompt, SHA-256": text(metadata.artefact_sha256),
    }
    layout = ("tokens", "frozen_words", "name_position", "class_specific")
    keys = ("method", "host", "form", "rank", *layout, "template")
    rows |= {key: text(artefact[key]) for key in keys if key in artefact}
    return f"## Model\n\n{table(('', ''), rows.items())}"


def of_classes(classes: tuple[str, ...]) -> str:
    """Return the names, in the order of the logits."""
    more = len(classes) - _MOST_CLASSES
    rows = ((str(number), text(name)) for number, name in enumerate(classes[:_MOST_CLASSES]))
    told = table(("logit", "class"), rows)
    return f"## Classes\n\n{told}" + (f"\nThe file has {more:,} more.\n" if more > 0 else "")


def of_parity(metadata: GraphMetadata) -> str:
    """Return how far the file's answers lay from torch's when it was written."""
    recorded = metadata.parity or {}
    header = ("compared on", "images", "same first class", "largest logit difference", "accuracy")
    rows = [
        (
            told,
            number(found.get("images"), "{:,.0f}"),
            number(found.get("agreement"), "{:.2%}"),
            number(found.get("largest"), "{:.3g}"),
            _points(found.get("loss")),
        )
        for told, key in (("real images", "images"), ("seeded probes", "probes"))
        if isinstance(found := recorded.get(key), dict)
    ]
    told = table(header, rows) if rows else "Not recorded.\n"
    if not isinstance(recorded.get("images"), dict):
        told += "\nNo real images were compared.\n"
    if recorded.get("forced"):
        told += "\n**The bounds were broken, and the file was written all the same (`--force`).**\n"
    return f"## Agreement with torch\n\n{told}"


def of_ladder(metadata: GraphMetadata) -> str:
    """Return what each step from torch to the file cost and gained, on the machine it was on."""
    if not metadata.ladder:
        return ""
    header = ("step", "bytes", "operators", "speed", "same first class", "logits", "accuracy")
    rows = [
        (
            text(rung.get("step", "")),
            number(rung.get("size"), "{:,.0f}"),
            number(rung.get("nodes"), "{:,.0f}"),
            number(rung.get("speed"), "{:.2f}"),
            number(rung.get("agreement"), "{:.2%}"),
            number(rung.get("largest"), "{:.3g}"),
            _points(rung.get("loss")),
        )
        for rung in metadata.ladder
    ]
    told = (
        "Speed is open_clip's CPU time over the file's, one image at a time in one thread each, on "
        "the machine it was exported on; logits, the largest difference from torch; accuracy, in "
        "points, that of the file less that of torch.\n"
    )
    return f"## Ladder\n\n{table(header, rows)}\n{told}"


def of_tuning(artefact: Mapping[str, Any], run: RunRecord | None) -> str:
    """Return how the prompt was tuned, and how well it did where the run says so."""
    rows = {"round": number(artefact.get("round"), "{:.0f}")}
    rows |= {"seed": number(artefact.get("seed"), "{:.0f}")}
    if isinstance(merged := artefact.get("aggregation"), dict):
        rows["rule"] = text(merged.get("rule", NOT_RECORDED))
        rows["truncation error"] = number(merged.get("truncation_error"), "{:.3g}")
    rows |= _of_run(run) if run else {}
    told = table(("", ""), rows.items())
    if run is None:
        told += "\nNo record of a run with this prompt was at hand: no accuracy is stated.\n"
    elif run.settings.get("prompt.personal", "global") != "global":
        told += (
            "\nSites kept prompts of their own; the accuracies are with those, not this file's.\n"
        )
    return f"## Tuning\n\n{told}"


def _of_run(run: RunRecord) -> dict[str, str]:
    first, last, settings = run.first, run.last, run.settings
    rows = {}
    if first and first.joined:
        rows["sites that joined"] = str(len(first.joined))
    for key, name in (("server.strategy", "strategy"), ("server.weighting", "weighting")):
        if key in settings:
            rows[name] = text(settings[key])
    if settings.get("server.secure_aggregation") is True:
        rows["secure aggregation"] = "yes"
    for name, figure, form in (
        ("accuracy of the untrained prompt", first.accuracy if first else None, "{:.1%}"),
        ("accuracy", last.accuracy, "{:.1%}"),
        ("negative log-likelihood", last.nll, "{:.4f}"),
        ("training loss", last.loss, "{:.4f}"),
    ):
        if figure is not None:
            rows[name] = number(figure, form)
    if count := sum(score.examples for score in last.sites.values()):
        rows["accuracies are of"] = f"{count:,} held-out images of the sites"
    return rows


def of_privacy(artefact: Mapping[str, Any]) -> str:
    """Return what the prompt may tell about a site, by the ledger of its run."""
    if "privacy" not in artefact:
        told = "Not recorded.\n"
    elif not isinstance(spent := artefact["privacy"], dict):
        told = "No differential privacy is recorded: nothing bounds what the prompt tells.\n"
    else:
        keys = ("unit", "neighbours", "accountant", "amplification")
        rows = {
            "epsilon": number(spent.get("epsilon"), "{!r}"),  # a bound is not rounded
            "delta": number(spent.get("delta"), "{:g}"),
            "releases": number(spent.get("releases"), "{:.0f}"),
            "noise multiplier": number(spent.get("noise_multiplier"), "{:g}"),
            "clip norm": number(spent.get("clip_norm"), "{:g}"),
        } | {key: text(spent[key]) for key in keys if key in spent}
        told = table(("", ""), rows.items())
    return f"## Privacy\n\n{told}"


def limits() -> str:
    """Return what holds for every such file."""
    return (
        "## Limits\n\n"
        "- Some class is always first, whatever the image shows.\n"
        "- No licence is recorded: those of the backbone's weights and of the images hold.\n"
    )


def _points(loss: object) -> str:
    """Return a loss of accuracy, a share, as a change in points; without labels there is none."""
    change = 0 - 100 * loss if isinstance(loss, int | float) else None
    return number(change, "{:+.2f}")
