"""``flower-client status``: what this site did and sent."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from client.deployment import connection_status
from client.deployment.egress_log import EgressLog
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from client.deployment.start import FolderArgument
from fedprompt.files.file_lock import is_locked
from fedprompt.options import JsonOption, show


def status(folder: FolderArgument, json: JsonOption = False) -> None:
    """Say what this site did and sent; reads files only, so it works while the client runs."""
    told = summary(SiteFolder(folder))
    show(told, "\n".join(f"{key:18}{_shown(value)}" for key, value in told.items()), as_json=json)


def summary(folder: SiteFolder) -> dict[str, Any]:
    """Return the status as JSON values.

    Raises
    ------
    FedpromptError
        This is no site's folder, or a file of it is damaged.
    """
    node, heard = folder.node(), connection_status.read(folder.contact)
    lines, faults = EgressLog(folder.egress).verify()
    entries = [line.entry for line in lines if line.entry]
    return {
        "site": node.name,
        "server": node.server,
        "running": is_locked(folder.lock),
        "last_contact": heard.heard or None,
        "trouble": heard.trouble or None,
        "key_refused": heard.refused or None,
        "rounds": rounds(entries),
        "last_refusal": _last_refusal(entries),
        "bytes_today": _today(entries),
        "bytes_a_day": Policy.read(folder.policy).max_day,
        "answers": len(entries),
        "egress_faults": faults,
    }


def rounds(entries: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rounds this site sent an update in."""
    trained = {
        (entry.get("run"), entry.get("round"))
        for entry in entries
        if entry.get("kind") == "train" and "error" not in entry
    }
    return len(trained)


def _last_refusal(entries: Sequence[Mapping[str, Any]]) -> str | None:
    errors = [entry for entry in entries if "error" in entry]
    return f"{errors[-1].get('time')}: {errors[-1]['error']}" if errors else None


def _today(entries: Sequence[Mapping[str, Any]]) -> int:
    today = datetime.now(UTC).date().isoformat()
    return sum(int(entry.get("bytes", 0)) for entry in entries if entry.get("day") == today)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)
