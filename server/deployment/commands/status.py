"""``flower-server status``: show sites, rounds and the certificate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprompt.options import JsonOption, show
from fedprompt.text import one_line
from server.deployment import status as statuses
from server.deployment.commands.folder import FolderArgument
from server.deployment.folder import DeploymentFolder

_WIDTH = 140  # columns; a longer verdict is folded
_ERROR = 5000  # characters; an error may name many sites


def status(folder: FolderArgument = Path(), json: JsonOption = False) -> None:
    """Show who is enrolled and online, how far the run is and how long the certificate is good."""
    told = statuses.status(DeploymentFolder(folder))
    show(told, "" if json else lines(told), as_json=json)


def lines(told: Mapping[str, Any]) -> str:
    """Return a status for a person."""
    console = Console(width=_WIDTH, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(_head(told), soft_wrap=True, markup=False)
        if told["sites"]:
            console.print(_table(told["sites"]))
    return captured.get().rstrip()


def _head(told: Mapping[str, Any]) -> str:
    server = "runs" if told["running"] else "does not run"
    parts = [f"server {server} at {told['address']}; run: {told['run']}"]
    if told["error"]:
        parts.append(f"error: {one_line(told['error'], _ERROR)}")
    reached = "no round yet" if told["round"] is None else f"round {told['round']}"
    accuracy = "" if told["accuracy"] is None else f", accuracy {told['accuracy']:.1%}"
    parts.append(f"{reached} of {told['rounds']}{accuracy}")
    if certificate := told["certificate"]:
        problem = certificate["fault"] or certificate["warning"]
        parts.append(problem or f"certificate good for {certificate['days']} days")
    else:
        parts.append("insecure: plaintext without keys, on loopback")
    return "\n".join(parts)


def _table(sites: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("site", "name", "state", "last seen", "images", "strikes", "last verdict"):
        table.add_column(name, no_wrap=name != "last verdict")
    for site in sites:
        table.add_row(
            str(site["number"]),
            site["name"],
            _state(site),
            site["last_seen"] or "never",
            str(site["images"] or "any"),
            str(site["strikes"]),
            _verdict(site["verdict"]),
        )
    return table


def _state(site: Mapping[str, Any]) -> str:
    if site["revoked"]:
        return "revoked"
    state = "online" if site["online"] else "offline"
    return f"{state}, quarantined" if site["quarantined"] else state


def _verdict(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return ""
    said = "accepted" if verdict["accepted"] else "refused"
    reasons = f" ({', '.join(verdict['reasons'])})" if verdict["reasons"] else ""
    return f"round {verdict['round']}: {said}{reasons}"
