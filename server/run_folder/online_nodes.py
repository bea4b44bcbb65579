"""Read who is connected from the file that ``flower-server`` keeps: ``nodes.json``."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_FRESH = 60.0  # seconds after which the file is no news of who is connected; it is kept every 2 s


@dataclass(frozen=True)
class Presence:
    """Say whether one site is connected, and when it last spoke (seconds since 1970, UTC)."""

    number: int
    name: str
    online: bool
    last_seen: float | None


def read(path: Path) -> list[Presence]:
    """Return every site of the file; nobody if it is missing or damaged.

    A file that is no longer kept tells when sites spoke, not that they are connected.
    """
    try:
        fresh = time.time() - path.stat().st_mtime < _FRESH
        listed = json.loads(path.read_bytes())["sites"]
        return [_site(line, fresh) for line in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _site(line: dict[str, Any], fresh: bool) -> Presence:
    seen = line["last_seen"]
    moment = datetime.fromisoformat(seen).timestamp() if seen else None
    return Presence(int(line["number"]), str(line["name"]), bool(line["online"]) and fresh, moment)
