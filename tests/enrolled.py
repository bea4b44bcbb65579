"""Enrolled sites for tests: a CA, its invitations and the folders that joining makes of them."""

import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from flwr.app import Context, Message, Metadata, RecordDict

from client.app import app
from client.deployment import site_folder
from client.deployment.site_folder import SiteFolder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.protocol.invitation import Invitation, SharedBackbone
from server.deployment import issuer
from tests import paperwork

SERVER = "127.0.0.1:9092"


def invitation(
    classes: tuple[str, ...], clip: FrozenClip | None = None, **fields: object
) -> Invitation:
    """Return the invitation of a site of a new deployment, which a CLIP of tests fits."""
    ca_key = issuer.new_key()
    ca = issuer.authority(ca_key, "a test")
    backbone = SharedBackbone(
        name="embedded-cnn",
        pretrained="",
        quick_gelu="auto",
        sha256=clip.fingerprint if clip else "0" * 64,
    )
    defaults = {
        "name": "north",
        "address": SERVER,
        "ca": issuer.pem(ca).decode(),
        "crl": issuer.pem(issuer.revocation_list(ca, ca_key, [])).decode(),
        "key": issuer.ssh_pair(issuer.new_key())[0],
        "classes": classes,
        "backbone": backbone,
        "tokenizer": clip.tokenizer_fingerprint if clip else "0" * 64,
        "version": version("fedprompt"),
        "issued": datetime.now(UTC).isoformat(),
    }
    return paperwork.invitation(**(defaults | fields))


def site(path: Path, data: Path, found: Invitation) -> SiteFolder:
    """Return the folder that joining makes."""
    folder = SiteFolder(path)
    site_folder.create(folder, found, str(data))
    return folder


def rule(folder: SiteFolder, key: str, value: str) -> None:
    """Change one rule of a site's policy."""
    lines = folder.policy.read_text(encoding="utf-8").splitlines()
    changed = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    assert changed != lines
    folder.policy.write_text("\n".join(changed) + "\n", encoding="utf-8")


def send(
    folder: SiteFolder, kind: str, content: RecordDict, settings: dict, node: dict | None = None
) -> Message:
    """Hand one message to the ClientApp of a deployed site, as the worker does."""
    where = {"site-folder": str(folder.path)} if node is None else node
    return app(message(kind, content), Context(1, 7, where, RecordDict(), settings))


def message(kind: str, content: RecordDict) -> Message:
    """Return a message as a site gets it."""
    metadata = Metadata(
        run_id=1,
        message_id="f" * 64,
        src_node_id=1,
        dst_node_id=7,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=kind,
    )
    return Message(metadata=metadata, content=content)
