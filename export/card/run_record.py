"""Find what a run's folder recorded of the round that a prompt came from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.identity import sha256_arrays


@dataclass(frozen=True)
class RunRecord:
    """Hold a run's settings, its first round and the one that made a prompt, as they were written.

    Each is a plain table that may lack anything.
    """

    settings: dict[str, Any]
    first: dict[str, Any]
    last: dict[str, Any]

    @classmethod
    def find(cls, given: Path, artefact: Artefact) -> "RunRecord | None":
        """Return the record of an artefact, or None where nothing here tells of it.

        Parameters
        ----------
        given
            Folder of a run, or of the artefact in it.
        artefact
            What was read from there; a round counts only if it has this prompt's hash.
        """
        place = given.resolve()
        run = place.parent if place.name == "artefact" else place
        lines = list(_lines(run / "rounds.jsonl"))
        prompt = _prompt(artefact)
        made = [line for line in lines if line.get("prompt") == prompt]
        first = next((line for line in lines if line.get("round") == 0), {})
        return cls(_table(run / "settings.json"), first, made[-1]) if made else None


def _prompt(artefact: Artefact) -> str:
    """Return the hash that a round's line has of the arrays that travelled."""
    names = artefact.metadata["trained"]
    return sha256_arrays({k: array for k, array in artefact.tensors.items() if k in names})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a record; a torn or damaged one is left out."""
    for text in _bytes(path).splitlines():
        if line := _parse(text):
            yield line


def _table(path: Path) -> dict[str, Any]:
    return _parse(_bytes(path))


def _parse(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
