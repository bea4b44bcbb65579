"""Keep the story of a run: one JSON line a round, in step with the committed checkpoints.

Beside it, ``settings.json`` says what the run was asked for.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedprompt.config import Flat
from fedprompt.errors import StorageError
from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic

Line = Mapping[str, Any]
SETTINGS = "settings.json"


def read_settings(folder: Path) -> Flat:
    """Return the settings a run was begun with; none if they are missing or damaged."""
    try:
        own = json.loads((folder / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    return own if isinstance(own, dict) else {}


def append(path: Path, line: Line) -> None:
    """Add one line and make it last; it counts once its round's checkpoint is in place.

    Raises
    ------
    StorageError
        The disk is full or read-only.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(canonical_json(_tellable(line)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path} could not be extended: {error.strerror}") from error


def _tellable(value: object) -> object:
    """Return a value that JSON can hold: a number that is not finite is none, and ends no run."""
    if isinstance(value, Mapping):
        return {key: _tellable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_tellable(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a record; a torn or damaged one is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # the writer was killed here, or the disk lost it; a checkpoint tells which
        if isinstance(line, dict) and isinstance(line.get("round"), int):
            lines.append(line)
    return lines


def truncate(path: Path, last_round: int) -> None:
    """Drop the lines of rounds that were written but never committed."""
    kept = [line for line in read(path) if line["round"] <= last_round]
    write_atomic(path, b"".join(canonical_json(line) + b"\n" for line in kept))


def summary(line: Line, rounds: int) -> str:
    """Return one round in one plain line, as it appears in a log."""
    parts = [f"round {line['round']}/{rounds}"]
    if "asked" in line:
        parts.append(f"{len(line['accepted'])} of {len(line['asked'])} sites")
    for key, name in (("loss", "loss"), ("accuracy", "accuracy"), ("worst_client_acc", "worst")):
        if line.get(key) is not None:
            parts.append(f"{name} {line[key]:.4f}")
    if "epsilon" in line:
        parts.append(f"epsilon {line['epsilon']:.3g}")
    if "bytes_up" in line:
        parts.append(f"{line['bytes_up']:,} bytes up, {line['bytes_down']:,} down")
    refused = [v["site"] for v in line.get("verdicts", []) if not v["accepted"]]
    if refused:
        parts.append(f"refused sites {refused}")
    return ", ".join([*parts, f"{line['seconds']:.1f} s"])
