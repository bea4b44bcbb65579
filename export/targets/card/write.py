"""Write the model card of what was exported, from the exported file and the run's own records."""

from pathlib import Path

from export.graph.validate_graph import parse_model
from export.runtime.artifact_kind import classifier_of, is_bundle
from export.runtime.metadata import GraphMetadata
from export.runtime.safety.read_model import read_model
from export.targets.card import sections
from export.targets.card.run_record import RunRecord
from export.targets.card.sections import Exported
from fedprompt.artefact import Artefact
from fedprompt.errors import StorageError
from fedprompt.identity import sha256_bytes
from fedprompt.storage import write_atomic

_OURS = b"library_name: fedprompt"  # in the head of every card
_HEAD = 1000  # bytes


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


def write_card(path: Path, artefact: Artefact, record: RunRecord | None) -> Path:
    """Write the card of a file or folder that was just exported, and return where it lies.

    Parameters
    ----------
    path
        What `fedprompt export` wrote.
    artefact
        The prompt that was folded.
    record
        Of the run that it came from, where there is one.

    Raises
    ------
    GraphError
        The file is not ours.
    StorageError
        The card cannot be written, or something else lies in its place.
    """
    card = card_of(path, folder=path.is_dir())
    graph = classifier_of(path)
    data = read_model(graph)
    found = {entry.key: entry.value for entry in parse_model(data, str(graph)).metadata_props}
    metadata = GraphMetadata.from_properties(found)
    name = str(graph.relative_to(path)) if path.is_dir() else path.name
    file = Exported(name, len(data), sha256_bytes(data), is_bundle(path))
    write_atomic(card, compose(file, metadata, artefact, record).encode())
    return card


def compose(
    file: Exported, metadata: GraphMetadata, artefact: Artefact, record: RunRecord | None
) -> str:
    """Return a card's text."""
    told, method = artefact.metadata, str(artefact.metadata["method"])
    head = sections.front_matter(file, metadata.backbone, method)
    title = f"# Image classifier of {len(metadata.classes):,} classes\n"
    about = "Made by `fedprompt export` of what was recorded; what is not here was not recorded.\n"
    parts = [
        f"{head}{title}",
        about,
        sections.of_file(file, metadata),
        sections.of_model(metadata, told),
        sections.of_classes(metadata.classes),
        sections.of_parity(metadata),
        sections.of_ladder(metadata),
        sections.of_tuning(told, record),
        sections.of_privacy(told),
        sections.limits(),
    ]
    return "\n".join(part for part in parts if part)
