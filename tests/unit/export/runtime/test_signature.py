import base64
import json
from pathlib import Path
from typing import Any

import pytest

import export.runtime.signature
from export.runtime.signature import Signature, signature_of
from fedprompt.errors import GraphError

KEY, HASH = "a" * 64, "b" * 64


def write(path: Path, *, hint: object = KEY, **changes: object) -> Path:
    serialization = {"method": "files", "hash_type": "sha256", "ignore_paths": ["model.sig"]}
    statement = {
        "predicate": {
            "serialization": serialization | changes,
            "resources": [{"name": "1/model.onnx", "algorithm": "sha256", "digest": HASH}],
        }
    }
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    whole: dict[str, Any] = {
        "verificationMaterial": {"publicKey": {"hint": hint}},
        "dsseEnvelope": {"payload": payload},
    }
    path.write_text(json.dumps(whole))
    return path


def test_where_a_signature_lies(tmp_path: Path) -> None:
    assert signature_of(tmp_path) == tmp_path / "model.sig"
    assert signature_of(tmp_path / "c.onnx") == tmp_path / "c.onnx.sig"


def test_key_and_files_are_read(tmp_path: Path) -> None:
    found = Signature.read(write(tmp_path / "x.sig"))
    assert found == Signature(KEY, {"1/model.onnx": HASH})
    git = [".git", ".gitignore", "model.sig"]
    assert Signature.read(write(tmp_path / "x.sig", ignore_paths=git)).files


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hint": None}, "names no key"),
        ({"hint": ""}, "names no key"),
        ({"hint": 3}, "names no key"),
        ({"method": "shards"}, "expected SHA-256 of files"),
        ({"hash_type": "blake2"}, "expected SHA-256 of files"),
        ({"ignore_paths": ["1/model.onnx"]}, "leaves out '1/model.onnx'"),
        ({"ignore_paths": ["."]}, "leaves out"),
        ({"ignore_paths": 3}, "TypeError"),
    ],
)
def test_what_is_not_over_every_file_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(GraphError, match=says):
        Signature.read(write(tmp_path / "x.sig", **changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"verificationMaterial": {"certificate": {}}}',
        b'{"verificationMaterial": {"publicKey": {"hint": "a"}}, "dsseEnvelope": {"payload": 1}}',
        b'{"verificationMaterial": {"publicKey": {"hint": "a"}}, "dsseEnvelope": {"payload": "{"}}',
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.sig").write_bytes(data)
    with pytest.raises(GraphError, match=r"x\.sig is no signature by a key, or is damaged"):
        Signature.read(tmp_path / "x.sig")


def test_a_missing_large_or_odd_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GraphError, match="does not exist, so nothing says who made this"):
        Signature.read(tmp_path / "no.sig")
    with pytest.raises(GraphError, match="is no file of at most"):
        Signature.read(tmp_path)
    (tmp_path / "f").touch()
    with pytest.raises(GraphError, match="could not be read"):
        Signature.read(tmp_path / "f" / "x.sig")
    monkeypatch.setattr(export.runtime.signature, "_MOST", 10)
    with pytest.raises(GraphError, match="at most 10 bytes"):
        Signature.read(write(tmp_path / "x.sig"))
