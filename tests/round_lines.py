"""The lines of a run's record as JSON has them, whatever the product makes of them."""

import json
from pathlib import Path
from typing import Any

_OF_A_CLOCK = ("seconds", "time")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``rounds.jsonl``; one that is being written is left out."""
    path = folder / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def timeless(folder: Path) -> list[dict[str, Any]]:
    """Return the lines without what a clock wrote: equal for equal runs."""
    return [{k: v for k, v in line.items() if k not in _OF_A_CLOCK} for line in read(folder)]


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add a made-up line, which need not have every key."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
