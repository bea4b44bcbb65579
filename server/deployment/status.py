"""``flower-server status``: sites, rounds and the certificate, from the folder's files alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprompt.errors import FedpromptError
from fedprompt.files.file_lock import is_locked
from fedprompt.options import JsonOption, show
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import section
from fedprompt.settings.server import ServerConfig
from fedprompt.text import one_line
from server.deployment import credentials, sites
from server.deployment.command import FolderArgument
from server.deployment.folder import DeploymentFolder
from server.run_folder import run_status
from server.run_folder.run_status import Outcome

_WIDTH = 140  # columns; a longer verdict is folded
_ERROR = 5000  # characters; an error may name many sites


def status(folder: FolderArgument = Path(), json: JsonOption = False) -> None:
    """Show who is enrolled and online, how far the run is and how long the certificate is good."""
    result = summary(DeploymentFolder(folder))
    show(result, "" if json else lines(result), as_json=json)


def lines(result: Mapping[str, Any]) -> str:
    """Return a status for a person."""
    console = Console(width=_WIDTH, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(_head(result), soft_wrap=True, markup=False)
        if result["sites"]:
            console.print(_table(result["sites"]))
    return captured.get().rstrip()


def _head(result: Mapping[str, Any]) -> str:
    server = "runs" if result["running"] else "does not run"
    parts = [f"server {server} at {result['address']}; run: {result['run']}"]
    if result["error"]:
        parts.append(f"error: {one_line(result['error'], _ERROR)}")
    reached = "no round yet" if result["round"] is None else f"round {result['round']}"
    accuracy = "" if result["accuracy"] is None else f", accuracy {result['accuracy']:.1%}"
    parts.append(f"{reached} of {result['rounds']}{accuracy}")
    if certificate := result["certificate"]:
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
            _site_state(site),
            site["last_seen"] or "never",
            str(site["images"] or "any"),
            str(site["strikes"]),
            _verdict(site["verdict"]),
        )
    return table


def _site_state(site: Mapping[str, Any]) -> str:
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


def summary(folder: DeploymentFolder) -> dict[str, Any]:
    """Return what is known of server, run, sites and certificate.

    Raises
    ------
    ConfigError
        This is no deployment folder, or its list of sites is damaged.
    """
    config, settings = folder.config(), folder.run_settings()
    records = RunFolder(folder.run).records()
    last = records[-1] if records else None
    evaluated = [record for record in records if record.accuracy is not None]
    ended = run_status.read(folder.run)
    running = is_locked(folder.lock)
    return {
        "folder": str(folder.path),
        "address": config.address,
        "running": running,
        "run": _run_state(running, ended),
        "error": (ended.message or None) if ended else None,
        "round": last.round if last else None,
        "rounds": section(settings, "server", ServerConfig).rounds,
        "accuracy": evaluated[-1].accuracy if evaluated else None,
        "worst_client_acc": evaluated[-1].worst_client_acc if evaluated else None,
        "certificate": None if config.insecure else _certificate(folder, config.dialled),
        "sites": [
            _site(site, _nodes(folder.nodes), last, _verdicts(records), running=running)
            for site in sites.read(folder.path)
        ],
    }


def _run_state(running: bool, ended: Outcome | None) -> str:
    if ended is None:
        return "running" if running else "not running"
    if running and ended.crashed:
        return "starting again"
    return "failed" if ended.error else "done"


def _site(
    site: sites.Enrolled,
    nodes: dict[int, dict[str, Any]],
    last: RoundRecord | None,
    verdicts: dict[int, dict[str, Any]],
    *,
    running: bool,
) -> dict[str, Any]:
    node = nodes.get(site.number, {})
    return {
        "number": site.number,
        "name": site.name,
        "enrolled": site.enrolled,
        "revoked": site.revoked,
        "online": bool(running and node.get("online")),
        "last_seen": node.get("last_seen"),
        "images": site.images,
        "strikes": last.strikes.get(site.number, 0) if last else 0,
        "quarantined": last is not None and site.number in last.quarantined,
        "verdict": verdicts.get(site.number),
    }


def _verdicts(records: Sequence[RoundRecord]) -> dict[int, dict[str, Any]]:
    """Return the last verdict on each site, with its round; a record names the special ones."""
    verdicts: dict[int, dict[str, Any]] = {}
    for record in records:
        for site in record.accepted:
            verdicts[site] = {"round": record.round, "accepted": True, "reasons": []}
        for verdict in record.verdicts:
            if verdict.site is not None:
                verdicts[verdict.site] = {
                    "round": record.round,
                    "accepted": verdict.accepted,
                    "reasons": list(verdict.reasons),
                }
    return verdicts


def _certificate(folder: DeploymentFolder, host: str) -> dict[str, Any]:
    try:
        validity = credentials.validity(folder, host)
    except FedpromptError as error:
        return {"days": None, "fault": str(error), "warning": None}
    return {"days": validity.days, "fault": validity.fault, "warning": validity.warning}


def _nodes(path: Path) -> dict[int, dict[str, Any]]:
    try:
        return {site["number"]: site for site in json.loads(path.read_bytes())["sites"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the SuperLink has not written it yet
