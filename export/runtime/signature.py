"""Read what a signature says it was made of, and with which key; nothing here is checked.

The file is OpenSSF's: a Sigstore bundle around a DSSE envelope around an in-toto statement, which
lists every file of a model with its SHA-256. Sources: docs of model-signing 1.1 ("Model Signing
Format"), secure-systems-lab/dsse (protocol.md), in-toto/attestation (spec v1).
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprompt.errors import GraphError

NAME = "model.sig"  # in a folder; the name that OpenSSF's own command gives it
_MOST = 1 << 24  # bytes; a hundred thousand files fit


def signature_of(path: Path) -> Path:
    """Return where a signature lies: inside a folder, or beside a file."""
    return path / NAME if path.is_dir() else path.with_name(f"{path.name}.sig")


@dataclass(frozen=True)
class Signature:
    """What a signature file says.

    Attributes
    ----------
    key
        SHA-256 of the public key, 64 hexadecimal digits.
    files
        SHA-256 of each file by its path below the folder; ``.`` is the path of a file alone.
    """

    key: str
    files: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Signature":
        """Read a signature file.

        Raises
        ------
        GraphError
            It is missing, damaged, or was not made with a key over the SHA-256 of whole files.
        """
        text = _read(path)
        try:
            signed = json.loads(text)
            key = signed["verificationMaterial"]["publicKey"]["hint"]
            statement = json.loads(base64.b64decode(signed["dsseEnvelope"]["payload"]))
            predicate = statement["predicate"]
            files = {str(r["name"]): str(r["digest"]) for r in predicate["resources"]}
            _check(key, predicate["serialization"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GraphError(
                f"{path} is no signature by a key, or is damaged ({type(error).__name__}: "
                f"{error}); expected the file that `fedprompt sign` wrote: get it again"
            ) from None
        return cls(key, files)


def _check(key: object, serialization: dict[str, Any]) -> None:
    """Refuse a signature that names no key, or does not cover whole files by their SHA-256."""
    if not isinstance(key, str) or not key:
        raise ValueError("it names no key")
    hashing = (serialization["method"], serialization["hash_type"])
    if hashing != ("files", "sha256"):
        raise ValueError(f"its hashes are {hashing}, expected SHA-256 of files")
    for name in serialization.get("ignore_paths", []):
        if name != NAME and not str(name).startswith(".git"):
            raise ValueError(f"it leaves out {name!r}")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST or not path.is_file():
            raise GraphError(f"{path} is no file of at most {_MOST:,} bytes; get it again")
        return path.read_bytes()
    except FileNotFoundError:
        raise GraphError(
            f"{path} does not exist, so nothing says who made this; `fedprompt sign` writes it: "
            "get it with the model, or verify without --public-key"
        ) from None
    except OSError as error:
        raise GraphError(f"{path} could not be read: {error.strerror}") from None
