"""Register the keys of ``sites.json`` at the SuperLink, and record which nodes are online.

Registration through Flower's fleet API is off, so these keys are the only ones that get in. The
state behind the SuperLink is not public in Flower; what is used of it is written down here.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic
from server.deployment import sites
from server.deployment.sites import Enrolled

NAME = "nodes.json"  # site -> node, and who is online; the ServerApp and the metrics read it
PAUSE = 2.0  # seconds between two reads of sites.json

_log = logging.getLogger("fedprompt.audit")


class LinkState(Protocol):
    """The part of the SuperLink's state that is used here."""

    def create_node(
        self,
        owner_aid: str,
        owner_name: str,
        public_key: bytes,
        heartbeat_interval: float,
        *,
        location: str | None = None,
        name: str | None = None,
    ) -> int:
        """Register a key and return its node id."""

    def delete_node(self, owner_aid: str, node_id: int) -> None:
        """Refuse a node from now on."""

    def get_node_info(self, *, owner_aids: Sequence[str]) -> Sequence[NodeInfo]:
        """Return all nodes that an account registered."""


def follow(state: LinkState, folder: Path, stopped: threading.Event) -> None:
    """Follow ``sites.json`` until stopped; a failure is logged and retried."""
    while not stopped.wait(PAUSE):
        try:
            sync(state, folder)
        except Exception as error:  # whatever the state's database raises: a revocation must follow
            _log.error("the enrolled sites could not be followed: %s", error)


def sync(state: LinkState, folder: Path) -> None:
    """Register new keys, remove revoked ones and write which nodes are online."""
    known = _registered(state)
    enrolled = sites.read(folder)
    for site in enrolled:
        key = _key(site)
        if site.revoked and key in known:
            state.delete_node(NOOP_FLWR_AID, known.pop(key).node_id)
            _log.warning("revoked %s", site.name, extra={"event": "revoked", "site": site.name})
        elif not site.revoked and key not in known:
            state.create_node(
                NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL, name=site.name
            )
            _log.info("registered %s", site.name, extra={"event": "registered", "site": site.name})
    known = _registered(state)
    listed = [_line(site, known[_key(site)]) for site in enrolled if not site.revoked]
    write(folder, listed)


def write(folder: Path, sites: Sequence[Mapping[str, object]]) -> None:
    """Write which sites are enrolled and online."""
    write_atomic(folder / NAME, canonical_json({"sites": sites}))


def _registered(state: LinkState) -> dict[bytes, NodeInfo]:
    nodes = state.get_node_info(owner_aids=[NOOP_FLWR_AID])
    return {node.public_key: node for node in nodes if node.status != "unregistered"}


def _key(site: Enrolled) -> bytes:
    return public_key_to_bytes(load_ssh_public_key(site.key.encode()))  # type: ignore[arg-type]


def _line(site: Enrolled, node: NodeInfo) -> dict[str, object]:
    until, interval = node.online_until, node.heartbeat_interval
    seen = datetime.fromtimestamp(until - 2 * interval, UTC) if until else None
    return {
        "number": site.number,
        "name": site.name,
        "images": site.images,
        "node": node.node_id,
        "online": node.status == "online",
        "last_seen": seen.isoformat(timespec="seconds") if seen else None,
    }
