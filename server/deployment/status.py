"""Tell how a deployment is doing, from its files alone: no server need run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedprompt.errors import FedpromptError
from fedprompt.files.file_lock import is_locked
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import section
from fedprompt.settings.server import ServerConfig
from server import outcome
from server.deployment import credentials, sites
from server.deployment.folder import DeploymentFolder
from server.outcome import Outcome


def status(folder: DeploymentFolder) -> dict[str, Any]:
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
    ended = outcome.read(folder.run)
    running = is_locked(folder.lock)
    return {
        "folder": str(folder.path),
        "address": config.address,
        "running": running,
        "run": _state(running, ended),
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


def _state(running: bool, ended: Outcome | None) -> str:
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
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        for site in record.accepted:
            found[site] = {"round": record.round, "accepted": True, "reasons": []}
        for verdict in record.verdicts:
            if verdict.site is not None:
                found[verdict.site] = {
                    "round": record.round,
                    "accepted": verdict.accepted,
                    "reasons": list(verdict.reasons),
                }
    return found


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
