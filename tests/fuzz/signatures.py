"""Signatures of exported files: what is read of them before any key is used."""

import base64
import json
from typing import Any

from export.runtime.signature import Signature
from tests.fuzz.scratch import folder

CAP = 1 << 16
_FOLDER = {"method": "files", "hash_type": "sha256", "ignore_paths": [".git", "model.sig"]}
_FILE = {"method": "files", "hash_type": "sha256"}


def feed(data: bytes) -> None:
    """Read one signature."""
    path = folder("signature") / "model.sig"
    path.write_bytes(data)
    found = Signature.read(path)
    json.dumps([found.key, found.files])


def seeds() -> list[bytes]:
    """Return the signature of a file, and that of a folder."""
    return [_signature(_FILE, "."), _signature(_FOLDER, "1/model.onnx", "labels.txt")]


def _signature(serialization: dict[str, Any], *names: str) -> bytes:
    files = [{"name": name, "algorithm": "sha256", "digest": "a" * 64} for name in names]
    statement = {"predicate": {"serialization": serialization, "resources": files}}
    whole = {
        "verificationMaterial": {"publicKey": {"hint": "b" * 64}},
        "dsseEnvelope": {"payload": base64.b64encode(json.dumps(statement).encode()).decode()},
    }
    return json.dumps(whole).encode()
