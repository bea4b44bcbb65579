"""``flower-client egress``: everything that left this site, and whether the log is whole."""

from collections.abc import Mapping
from typing import Any

from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from client.deployment.start import FolderArgument
from fedprompt.errors import StorageError
from fedprompt.files.hash_chain import FIRST
from fedprompt.options import JsonOption, show

_HEAD = f"{'time (UTC)':21}{'kind':10}{'round':7}{'bytes':>8}  what"


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
    told = {"entries": entries, "bytes": total, "last": last, "torn": torn, "faults": faults}
    table = [
        _HEAD,
        *(row(entry) for entry in entries),
        f"{total:,} bytes in {len(entries)} answers",
    ]
    show(told, "\n".join([*table, f"last hash {last}"]), as_json=json)
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
    """Return what an answer held, in short."""
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
