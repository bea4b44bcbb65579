"""Tell how a deployment is doing, from its files alone: no server need run."""

import json
from pathlib import Path
from typing import Any

from fedprompt.config import section
from fedprompt.errors import FedpromptError
from server import outcome, record
from server.config import ServerConfig
from server.deployment import credentials, lock, sites
from server.deployment.folder import DeploymentFolder
from server.rounds import RECORD


def status(folder: DeploymentFolder) -> dict[str, Any]:
    """Return what is known of server, run, sites and certificate.

    Raises
    ------
    ConfigError
        This is no deployment folder, or its list of sites is damaged.
    """
    config, settings = folder.config(), folder.run_settings()
    lines = record.read(folder.run / RECORD)
    last: record.Line = lines[-1] if lines else {}
    ended = outcome.read(folder.run)
    running = lock.is_held(folder.lock)
    return {
        "folder": str(folder.path),
        "address": config.address,
        "running": running,
        "run": _state(running, ended),
        "error": (ended or {}).get("message"),
        "round": last.get("round"),
        "rounds": section(settings, "server", ServerConfig).rounds,
        "accuracy": _latest(lines, "accuracy"),
        "worst_client_acc": _latest(lines, "worst_client_acc"),
        "certificate": None if config.insecure else _certificate(folder, config.dialled),
        "sites": [
            _site(site, _nodes(folder.nodes), last, _verdicts(lines), running=running)
            for site in sites.read(folder.path)
        ],
    }


def _state(running: bool, ended: dict[str, Any] | None) -> str:
    if ended is None:
        return "running" if running else "not running"
    if running and ended.get("crashed"):
        return "starting again"
    return "failed" if ended.get("error") else "done"


def _site(
    site: sites.Enrolled,
    nodes: dict[int, dict[str, Any]],
    last: record.Line,
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
        "strikes": last.get("strikes", {}).get(str(site.number), 0),
        "quarantined": site.number in last.get("quarantined", []),
        "verdict": verdicts.get(site.number),
    }


def _verdicts(lines: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the last verdict on each site, with its round; a record names the special ones."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        for site in line.get("accepted", []):
            found[site] = {"round": line["round"], "accepted": True, "reasons": []}
        for verdict in line.get("verdicts", []):
            if verdict.get("site") is not None:
                found[verdict["site"]] = {
                    "round": line["round"],
                    "accepted": verdict["accepted"],
                    "reasons": verdict["reasons"],
                }
    return found


def _latest(lines: list[dict[str, Any]], key: str) -> float | None:
    return next((line[key] for line in reversed(lines) if line.get(key) is not None), None)


def _certificate(folder: DeploymentFolder, host: str) -> dict[str, Any]:
    try:
        told = credentials.validity(folder, host)
    except FedpromptError as error:
        return {"days": None, "fault": str(error), "warning": None}
    return {"days": told.days, "fault": told.fault, "warning": told.warning}


def _nodes(path: Path) -> dict[int, dict[str, Any]]:
    try:
        return {site["number"]: site for site in json.loads(path.read_bytes())["sites"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the SuperLink has not written it yet
