"""``flower-client status`` and ``egress``: what this site did, and everything that left it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from client.deployment import connection_status
from client.deployment.command import FolderArgument
from client.deployment.egress_log import EgressLog
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from fedprompt.errors import StorageError
from fedprompt.files.file_lock import is_locked
from fedprompt.files.hash_chain import FIRST
from fedprompt.options import JsonOption, show

_HEAD = f"{'time (UTC)':21}{'kind':10}{'round':7}{'bytes':>8}  what"


def status(folder: FolderArgument, json: JsonOption = False) -> None:
    """Report what this site did and sent; reads files only, so it works while the client runs."""
    result = summary(SiteFolder(folder))
    show(
        result, "\n".join(f"{key:18}{_shown(value)}" for key, value in result.items()), as_json=json
    )


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
        "rounds": _rounds(entries),
        "last_refusal": _last_refusal(entries),
        "bytes_today": _today(entries),
        "bytes_a_day": Policy.read(folder.policy).max_day,
        "answers": len(entries),
        "egress_faults": faults,
    }


def _rounds(entries: Sequence[Mapping[str, Any]]) -> int:
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


def egress(folder: FolderArgument, json: JsonOption = False) -> None:
    """List everything that left this site; exit 12 if the log was tampered with.

    Each line of the log holds the hash of the line before it. The last hash is printed: note it
    elsewhere, and nobody can shorten or rewrite the log unseen.
    """
    site = SiteFolder(folder)
    site.node()
    lines, faults = EgressLog(site.egress).verify()
    entries = [line.entry for line in lines if line.entry]
    last = lines[-1].hash if lines else FIRST
    torn = len(lines) - len(entries)
    total = sum(int(entry.get("bytes", 0)) for entry in entries)
    result = {"entries": entries, "bytes": total, "last": last, "torn": torn, "faults": faults}
    table = [
        _HEAD,
        *(row(entry) for entry in entries),
        f"{total:,} bytes in {len(entries)} answers",
    ]
    show(result, "\n".join([*table, f"last hash {last}"]), as_json=json)
    if faults:
        raise StorageError(
            f"the log was tampered with: {faults[0]}; {len(faults)} such places. Compare it with a "
            "backup"
        )


def row(entry: Mapping[str, Any]) -> str:
    """Return one line of the table."""
    where = "-" if entry.get("round") is None else str(entry["round"])
    when = str(entry.get("time", ""))[:19]
    size = int(entry.get("bytes", 0))
    return f"{when:21}{entry.get('kind')!s:10}{where:7}{size:8,}  {what(entry)}"


def what(entry: Mapping[str, Any]) -> str:
    """Return the content of an answer, in short."""
    if error := entry.get("error"):
        return f"error: {error}"
    parts = [
        f"{array['name']} {'x'.join(map(str, array['shape']))} {array['dtype']} "
        f"norm {array['norm']:.3g} sha256 {array['sha256'][:12]}"
        for array in entry.get("arrays", [])
    ]
    parts += [f"{name}={value}" for name, value in sorted(entry.get("metrics", {}).items())]
    parts += [f"{name}={value!s:.24}" for name, value in sorted(entry.get("identity", {}).items())]
    return ", ".join(parts)
