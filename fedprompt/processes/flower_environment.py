"""The environment of Flower's processes: no telemetry, a home of their own, no proxy here.

They speak plain HTTP to each other on loopback. Where the environment names an HTTP proxy, Flower's
client would send that to it too: updates and tokens, readable.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else each run reinstalls torch
    "RAY_USAGE_STATS_ENABLED": "0",
}
HERE = ("127.0.0.1", "localhost", "::1")  # dialled without a proxy, whatever is set


def variables(home: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of Flower's processes.

    Parameters
    ----------
    home
        Folder of Flower's own files.
    given
        The variables to start from; this process's by default.
    """
    known = os.environ if given is None else given
    return {**known, **_QUIET, **_no_proxy(known), "FLWR_HOME": str(home)}


def _no_proxy(known: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, in both spellings, whose hosts are reached without a proxy."""
    hosts = known.get("no_proxy") or known.get("NO_PROXY") or ""  # as urllib prefers them
    if hosts.strip() != "*":  # all of them; it has no meaning in a list
        hosts = ",".join([*filter(None, [hosts]), *HERE])
    return {"no_proxy": hosts, "NO_PROXY": hosts}
