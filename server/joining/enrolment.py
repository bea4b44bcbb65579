"""Know which node speaks for which enrolled site, as the SuperLink lists them (F10)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedprompt.errors import ConfigError


@dataclass(frozen=True)
class Enrolment:
    """Hold what was agreed with a site: its number, its name, the images it may speak for."""

    number: int
    name: str
    images: int  # 0 = none agreed; its own word weighs little


def enrolments(path: Path) -> dict[int, Enrolment]:
    """Return the enrolled sites by node, as they are now.

    Raises
    ------
    ConfigError
        The list is missing or damaged; nobody may be admitted by guess.
    """
    try:
        listed = json.loads(path.read_bytes())["sites"]
        return {
            int(site["node"]): Enrolment(
                int(site["number"]), str(site["name"]), int(site["images"])
            )
            for site in listed
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"server.sites: {path} lists no enrolled sites: {error}; it is written by "
            "`flower-server start`, leave it empty without one"
        ) from None


def objection(found: Mapping[int, Enrolment], node: int, number: int) -> str:
    """Return why a node may not speak for the site of this number; empty if it may."""
    if node not in found:
        return "this node's key is not enrolled"
    mine = found[node]
    if mine.number != number:
        return f"this node's key is enrolled as site {mine.number} ({mine.name}), it says {number}"
    return ""
