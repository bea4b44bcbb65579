"""Sign what was exported, and check a signature, with OpenSSF's model-signing and a local key.

The one door to ``model_signing``, which is loaded here when it is needed: an extra. Its answer is
what counts; what a signature says of itself (`export.runtime.signature`) only tells why it was
refused.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from export.runtime.open import BUNDLE, classifier_of
from export.runtime.signature import NAME, Signature, signature_of
from fedprompt.errors import ConfigError, FedpromptError, GraphError
from fedprompt.storage import write_atomic

if TYPE_CHECKING:
    from model_signing import hashing, signing, verifying

_CURVES = "P-256, P-384 or P-521"
_SHOWN = 5  # files named in an error


def sign(path: Path, key: Path) -> Path:
    """Write the signature of a file or a folder that was exported, and return where it lies.

    Parameters
    ----------
    path
        What is signed: a file alone, or every file of a folder.
    key
        A private elliptic-curve key without a password, PEM.

    Raises
    ------
    ConfigError
        The key cannot be used, or would go out with the folder.
    GraphError
        Nothing of ours lies there, or it holds a link or a file that cannot be read.
    FedpromptError
        model-signing is not installed.
    StorageError
        The signature cannot be written.
    """
    classifier_of(path)
    signer = _signer(path, key)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / NAME
        try:
            signer.set_hashing_config(_hashing()).sign(path.resolve(), made)
        except (ValueError, OSError) as error:
            raise GraphError(f"{path} could not be signed: {error}") from None
        write_atomic(signature_of(path), made.read_bytes())
    return signature_of(path)


def check(path: Path, public_key: Path) -> Signature:
    """Return a signature that holds: made with the key, over these files and no others.

    Parameters
    ----------
    path
        A file or a folder that was signed; none of its files is opened as a graph.
    public_key
        Of the signer, PEM.

    Raises
    ------
    GraphError
        The signature is missing or damaged, was made with another key, or a file was changed, is
        missing or was added.
    ConfigError
        The key cannot be used.
    FedpromptError
        model-signing is not installed.
    """
    verifier, fingerprint = _verifier(public_key)
    place = signature_of(path)
    signature = Signature.read(place)
    if signature.key != fingerprint:
        raise GraphError(
            f"{place} was made with another key, sha256 {signature.key[:16]!r}…; {public_key} is "
            f"{fingerprint[:16]}…: do not use the model unless you know that key"
        )
    try:
        verifier.set_hashing_config(_hashing()).verify(path.resolve(), place)
    except OSError as error:
        raise GraphError(f"{path} could not be read: {error}") from None
    except Exception as error:  # of several kinds, those of its parsers too; each means the same
        raise GraphError(_explain(path, signature, error)) from None
    return signature


def _signer(path: Path, key: Path) -> "signing.Config":
    if path.is_dir() and key.resolve().is_relative_to(path.resolve()):
        raise ConfigError(f"{key} lies in {path} and would go out with it; keep it elsewhere")
    try:
        from model_signing import signing
    except ImportError as error:
        raise _missing(error) from None
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise ConfigError(f"{key} could not be read: {error.strerror}") from None
    except TypeError:
        raise ConfigError(
            f"{key} has a password; give a key without one, in a file that only you can read"
        ) from None
    except Exception:  # of several kinds; each means the same
        raise ConfigError(
            f"{key} is no private key on {_CURVES} in PEM; make one with `openssl ecparam -name "
            "prime256v1 -genkey -noout -out private.pem`"
        ) from None


def _verifier(public_key: Path) -> "tuple[verifying.Config, str]":
    """Return what verifies by a key, and the key's SHA-256 as signatures have it."""
    try:
        from cryptography.hazmat.primitives import serialization
        from model_signing import verifying
    except ImportError as error:
        raise _missing(error) from None
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        key = serialization.load_pem_public_key(public_key.read_bytes())
    except OSError as error:
        raise ConfigError(f"{public_key} could not be read: {error.strerror}") from None
    except Exception:  # of several kinds; each means the same
        raise ConfigError(
            f"{public_key} is no public key on {_CURVES} in PEM; `openssl ec -in private.pem "
            "-pubout -out public.pem` writes it"
        ) from None
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return verifier, hashlib.sha256(pem).hexdigest()


def _hashing() -> "hashing.Config":
    """Return how files are hashed: all of a folder but the signature, by SHA-256, no links."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[NAME], ignore_git_paths=False)


def _explain(path: Path, signature: Signature, error: Exception) -> str:
    """Return why a signature was refused."""
    place = signature_of(path)
    if not str(error).startswith("Signature mismatch"):  # the statement itself is not to be trusted
        told = str(error) or "the signature does not fit what it signs"
        return f"{place} is not good: {told}; get the model and its signature again"
    digests = {
        resource.identifier: resource.digest.digest_hex
        for resource in _hashing().hash(path.resolve()).resource_descriptors()
    }
    common = digests.keys() & signature.files.keys()
    changes = {
        "changed": {name for name in common if digests[name] != signature.files[name]},
        "missing": signature.files.keys() - digests.keys(),
        "added": digests.keys() - signature.files.keys(),
    }
    told = "; ".join(f"{what}: {_names(path, n)}" for what, n in changes.items() if n)
    own = " (swap, rollback and save change a bundle)" if BUNDLE in changes["changed"] else ""
    return (
        f"{path} is not what was signed ({told}); get it again, or sign it again if the change is "
        f"your own{own}"
    )


def _names(path: Path, names: set[str]) -> str:
    listed = sorted(path.name if name == "." else name for name in names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(repr, listed[:_SHOWN])) + more


def _missing(error: ImportError) -> FedpromptError:
    return FedpromptError(
        f"signatures need the package {error.name!r}, which is not installed; "
        "pip install 'fedprompt[signing]'"
    )
