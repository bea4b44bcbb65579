"""Write the model card of what was exported, from the exported file and the run's own records.

One function a section, each of what was recorded alone. Text that comes from strangers stays text:
no name of a class, a backbone or a setting becomes markup.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from export.runtime.metadata import GraphMetadata, without_path
from export.targets.classifier import Exported
from fedprompt.artefact import Artefact
from fedprompt.errors import CheckpointError, StorageError
from fedprompt.identity import sha256_arrays, sha256_bytes
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic

NOT_RECORDED = "not recorded"
_OURS = b"library_name: fedprompt"  # in the head of every card
_HEAD = 1000  # bytes
_MOST_CLASSES = 1000
_HUB = re.compile(r"hf-hub:([\w-][\w.-]*/[\w-][\w.-]*)", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)
_LONGEST = 200  # characters of a text
_LARGEST = 1e300  # no figure is; a whole number of any length is JSON, but no float
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]#~$:@="} | _ENTITIES)


@dataclass(frozen=True)
class RunRecord:
    """A run's settings, the round that made a prompt, and round 0 if it is recorded."""

    settings: Flat
    first: RoundRecord | None
    last: RoundRecord

    @classmethod
    def find(cls, given: Path, artefact: Artefact) -> "RunRecord | None":
        """Return the record of an artefact, or None where there is none.

        Parameters
        ----------
        given
            Folder of a run, or of the artefact in it.
        artefact
            What was read from there; a round counts only if it has this prompt's hash.
        """
        run = RunFolder.around(given)
        try:
            records = run.records()
        except CheckpointError:
            return None
        prompt = sha256_arrays(artefact.trained)
        made = [record for record in records if record.prompt == prompt]
        first = next((record for record in records if record.round == 0), None)
        return cls(run.settings(), first, made[-1]) if made else None


class ExportedFile(NamedTuple):
    """A classifier file and what it is part of.

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


def card_of(path: Path, *, folder: bool) -> Path:
    """Return where a card lies: ``README.md`` in a folder, beside a file its name and ``.md``.

    Raises
    ------
    StorageError
        Something else lies there, which the card would overwrite.
    """
    card = path / "README.md" if folder else path.with_name(f"{path.name}.md")
    try:
        ours = not card.exists() or _OURS in card.read_bytes()[:_HEAD]
    except OSError:  # a folder, or nobody may read it
        ours = False
    if not ours:
        raise StorageError(
            f"{card} is there, and is no model card of fedprompt's, which would take its place; "
            "move it away, or give another --output"
        )
    return card


def write_card(exported: Exported, artefact: Artefact, record: RunRecord | None) -> Path:
    """Write the card of a file or folder that was just exported, and return where it lies.

    Parameters
    ----------
    exported
        What was written.
    artefact
        The prompt that was folded.
    record
        Of the run that it came from, where there is one.

    Raises
    ------
    StorageError
        The card cannot be written, or something else lies in its place.
    """
    place, path = exported.place, exported.path
    card = card_of(place, folder=path != place)
    data = path.read_bytes()
    name = path.name if path == place else str(path.relative_to(place))
    file = ExportedFile(name, len(data), sha256_bytes(data), exported.is_bundle)
    write_atomic(card, compose(file, exported.conversion.metadata, artefact, record).encode())
    return card


def compose(
    file: ExportedFile, metadata: GraphMetadata, artefact: Artefact, record: RunRecord | None
) -> str:
    """Return the text of a card."""
    recorded, method = artefact.metadata, str(artefact.metadata["method"])
    head = front_matter(file, metadata.backbone, method)
    title = f"# Image classifier of {len(metadata.classes):,} classes\n"
    about = "Made by `fedprompt export` of what was recorded; what is not here was not recorded.\n"
    parts = [
        f"{head}{title}",
        about,
        of_file(file, metadata),
        of_model(metadata, recorded),
        of_classes(metadata.classes),
        of_parity(metadata),
        of_conversion(metadata),
        of_tuning(recorded, record),
        of_privacy(recorded),
        limits(),
    ]
    return "\n".join(part for part in parts if part)


def front_matter(file: ExportedFile, backbone: Mapping[str, Any], method: str) -> str:
    """Return the YAML head as hubs of models read it; no licence, for none is recorded."""
    task = "zero-shot-image-classification" if file.open_vocabulary else "image-classification"
    lines = ["library_name: fedprompt", f"pipeline_tag: {task}"]
    if hub := _HUB.fullmatch(str(backbone.get("name"))):
        lines.append(f'base_model: "{hub[1]}"')
    tags = ["onnx", "clip", *([method] if _WORD.fullmatch(method) else [])]
    lines += ["tags:", *(f'- "{tag}"' for tag in tags)]
    return "".join(f"{line}\n" for line in ("---", *lines, "---"))


def of_file(file: ExportedFile, metadata: GraphMetadata) -> str:
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
    classes_table = table(("logit", "class"), rows)
    return f"## Classes\n\n{classes_table}" + (
        f"\nThe file has {more:,} more.\n" if more > 0 else ""
    )


def of_parity(metadata: GraphMetadata) -> str:
    """Return how far the file's answers lay from torch's when it was written."""
    recorded = metadata.parity or {}
    header = ("compared on", "images", "same first class", "largest logit difference", "accuracy")
    rows = [
        (
            section,
            number(found.get("images"), "{:,.0f}"),
            number(found.get("agreement"), "{:.2%}"),
            number(found.get("largest"), "{:.3g}"),
            _points(found.get("loss")),
        )
        for section, key in (("real images", "images"), ("seeded probes", "probes"))
        if isinstance(found := recorded.get(key), dict)
    ]
    section = table(header, rows) if rows else "Not recorded.\n"
    if not isinstance(recorded.get("images"), dict):
        section += "\nNo real images were compared.\n"
    if recorded.get("forced"):
        section += (
            "\n**The bounds were broken, and the file was written all the same (`--force`).**\n"
        )
    return f"## Agreement with torch\n\n{section}"


def of_conversion(metadata: GraphMetadata) -> str:
    """Return what each step from torch to the file cost and gained, on the machine it was on."""
    if not metadata.ladder:
        return ""
    header = ("step", "bytes", "operators", "speed", "same first class", "logits", "accuracy")
    rows = [
        (
            text(step.get("step", "")),
            number(step.get("size"), "{:,.0f}"),
            number(step.get("nodes"), "{:,.0f}"),
            number(step.get("speed"), "{:.2f}"),
            number(step.get("agreement"), "{:.2%}"),
            number(step.get("largest"), "{:.3g}"),
            _points(step.get("loss")),
        )
        for step in metadata.ladder
    ]
    note = (
        "Speed is open_clip's CPU time over the file's, one image at a time in one thread each, on "
        "the machine it was exported on; logits, the largest difference from torch; accuracy, in "
        "points, that of the file less that of torch.\n"
    )
    return f"## Ladder\n\n{table(header, rows)}\n{note}"


def of_tuning(artefact: Mapping[str, Any], run: RunRecord | None) -> str:
    """Return how the prompt was tuned, and how well it did where the run says so."""
    rows = {"round": number(artefact.get("round"), "{:.0f}")}
    rows |= {"seed": number(artefact.get("seed"), "{:.0f}")}
    if isinstance(merged := artefact.get("aggregation"), dict):
        rows["rule"] = text(merged.get("rule", NOT_RECORDED))
        rows["truncation error"] = number(merged.get("truncation_error"), "{:.3g}")
    rows |= _of_run(run) if run else {}
    section = table(("", ""), rows.items())
    if run is None:
        section += "\nNo record of a run with this prompt was at hand: no accuracy is stated.\n"
    elif run.settings.get("prompt.personal", "global") != "global":
        section += (
            "\nSites kept prompts of their own; the accuracies are with those, not this file's.\n"
        )
    return f"## Tuning\n\n{section}"


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
        section = "Not recorded.\n"
    elif not isinstance(spent := artefact["privacy"], dict):
        section = "No differential privacy is recorded: nothing bounds what the prompt tells.\n"
    else:
        keys = ("unit", "neighbours", "accountant", "amplification")
        rows = {
            "epsilon": number(spent.get("epsilon"), "{!r}"),  # a bound is not rounded
            "delta": number(spent.get("delta"), "{:g}"),
            "releases": number(spent.get("releases"), "{:.0f}"),
            "noise multiplier": number(spent.get("noise_multiplier"), "{:g}"),
            "clip norm": number(spent.get("clip_norm"), "{:g}"),
        } | {key: text(spent[key]) for key in keys if key in spent}
        section = table(("", ""), rows.items())
    return f"## Privacy\n\n{section}"


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


def text(value: object) -> str:
    """Return any value as the inside of a cell, where it shows as it is: no markup, link or entity.

    What is not printable (line breaks, changes of direction) becomes a space, and what is long is
    cut.
    """
    begin = str(value)[: 4 * _LONGEST]
    line = " ".join("".join(c if c.isprintable() else " " for c in begin).split())
    cut = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return cut.translate(_ESCAPES).replace("www.", "www\\.") or "(blank)"


def number(value: object, form: str) -> str:
    """Return a finite number by a format such as ``{:.2%}``; what is none is not recorded."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return NOT_RECORDED
    return form.format(value)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
