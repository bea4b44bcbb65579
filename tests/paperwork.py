"""A CA, invitations and deployment folders for tests, without loading a CLIP."""

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from fedprompt.protocol.certificates import Key
from fedprompt.protocol.invitation import Invitation, SharedBackbone
from server.deployment import create_folder, issuer
from server.deployment.folder import DeploymentFolder

CLASSES = ("healthy", "ill")


def authority(name: str = "test CA") -> tuple[Key, x509.Certificate]:
    """Return a CA's key and certificate, the same for the same name."""
    return _authority(name)


@functools.cache
def _authority(name: str) -> tuple[Key, x509.Certificate]:
    key = issuer.new_key()
    return key, issuer.authority(key, name)


@functools.cache
def site_key() -> str:
    """Return a site's private key as OpenSSH text."""
    return issuer.ssh_pair(issuer.new_key())[0]


def crl(*serials: int) -> str:
    """Return the CA's list with some serial numbers on it."""
    key, ca = authority()
    now = datetime.now(UTC)
    listed = issuer.revocation_list(ca, key, [(serial, now) for serial in serials])
    return issuer.pem(listed).decode()


def invitation(**changes: Any) -> Invitation:
    """Return an invitation, some fields changed."""
    fields: dict[str, Any] = {
        "name": "st-mary",
        "number": 3,
        "address": "fed.example.org:9092",
        "ca": issuer.pem(authority()[1]).decode(),
        "crl": crl(),
        "key": site_key(),
        "classes": CLASSES,
        "template": "a photo of a {}.",
        "method": "dip",
        "backbone": SharedBackbone(
            name="embedded", pretrained="", quick_gelu="auto", sha256="0" * 64
        ),
        "tokenizer": "1" * 64,
        "version": "0.1.0",
        "issued": "2026-01-02T03:04:05+00:00",
    }
    return Invitation.model_validate(fields | changes)


def deployment(path: Path, **settings: Any) -> DeploymentFolder:
    """Return a new deployment folder on loopback; ``server__rounds=3`` sets ``server.rounds``."""
    folder = DeploymentFolder(path)
    run = {key.replace("__", "."): value for key, value in settings.items()}
    create_folder.create(folder, "127.0.0.1:9092", ",".join(CLASSES), run, days=397)
    return folder
