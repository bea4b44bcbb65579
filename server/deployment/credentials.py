"""Keep a deployment's keys and certificates in its folder, private ones at mode 0600."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedprompt.errors import ConfigError
from fedprompt.protocol import certificates
from fedprompt.protocol.certificates import Key, Validity
from fedprompt.storage import write_atomic
from server.deployment import issuer
from server.deployment.folder import DeploymentFolder

_PRIVATE = 0o600


def create(folder: DeploymentFolder, host: str, days: int = issuer.DAYS) -> None:
    """Make the CA, its empty revocation list and the server's certificate."""
    key = issuer.new_key()
    ca = issuer.authority(key, f"fedprompt CA of {host}"[:64])
    write_atomic(folder.ca_key, issuer.key_pem(key), _PRIVATE)
    write_atomic(folder.ca_certificate, issuer.pem(ca))
    write_atomic(folder.revocations, issuer.pem(issuer.revocation_list(ca, key, [])))
    _issue(folder, key, ca, host, days)


def renew(folder: DeploymentFolder, host: str, days: int, *, revoke_old: bool) -> Validity:
    """Replace the server's key and certificate; sites notice nothing, they trust the CA.

    Raises
    ------
    ConfigError
        The CA's key is not here.
    """
    key, ca = ca_key(folder), ca_certificate(folder)
    old = server_certificate(folder) if revoke_old else None
    _issue(folder, key, ca, host, days)
    if old:
        _revoke(folder, key, ca, old.serial_number)
    return validity(folder, host)


def validity(folder: DeploymentFolder, host: str) -> Validity:
    """Return how long the server's certificate is valid, and what is wrong with it.

    Raises
    ------
    ConfigError
        It is missing or damaged.
    """
    certificate = server_certificate(folder)
    revoked = certificates.revocations(
        read(folder.revocations), read(folder.ca_certificate)
    ).get_revoked_certificate_by_serial_number(certificate.serial_number)
    result = certificates.validity(certificate, host)
    if revoked is not None:
        return Validity(result.days, "the server's certificate was revoked")
    return result


def check(folder: DeploymentFolder) -> None:
    """Check that the server's certificate is the CA's and belongs to its key.

    Raises
    ------
    ConfigError
        Says which of them is missing, damaged or of another deployment.
    """
    ca, certificate = ca_certificate(folder), server_certificate(folder)
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception:  # of several kinds; each means the same
        raise ConfigError(
            f"{folder.certificate} is not signed by {folder.ca_certificate}; `flower-server renew`"
        ) from None
    if _key(folder.key).public_key() != certificate.public_key():
        raise ConfigError(
            f"{folder.key} does not belong to {folder.certificate}; `flower-server renew`"
        )


def ca_key(folder: DeploymentFolder) -> Key:
    """Return the CA's key.

    Raises
    ------
    ConfigError
        It is kept elsewhere, or is damaged.
    """
    if not folder.ca_key.exists():
        raise ConfigError(
            f"{folder.ca_key} is not here: put the CA's key back for this command. The server "
            "itself runs without it"
        )
    key = _key(folder.ca_key)
    if key.public_key() != ca_certificate(folder).public_key():
        raise ConfigError(f"{folder.ca_key} is not the key of {folder.ca_certificate}")
    return key


def ca_certificate(folder: DeploymentFolder) -> x509.Certificate:
    """Return the CA's certificate; ConfigError if it is missing or damaged."""
    return certificates.certificate(read(folder.ca_certificate))


def server_certificate(folder: DeploymentFolder) -> x509.Certificate:
    """Return the server's certificate; ConfigError if it is missing or damaged."""
    try:
        return x509.load_pem_x509_certificate(read(folder.certificate).encode())
    except ValueError:
        raise ConfigError(
            f"{folder.certificate} is damaged; make another with `flower-server renew`"
        ) from None


def _issue(
    folder: DeploymentFolder, ca_key: Key, ca: x509.Certificate, host: str, days: int
) -> None:
    key = issuer.new_key()
    made = issuer.server_certificate(key, ca, ca_key, [host], days)
    write_atomic(folder.key, issuer.key_pem(key), _PRIVATE)
    write_atomic(folder.certificate, issuer.pem(made))


def _revoke(folder: DeploymentFolder, key: Key, ca: x509.Certificate, serial: int) -> None:
    old = certificates.revocations(read(folder.revocations), read(folder.ca_certificate))
    void = [(entry.serial_number, entry.revocation_date_utc) for entry in old]
    made = issuer.revocation_list(ca, key, [*void, (serial, datetime.now(UTC))])
    write_atomic(folder.revocations, issuer.pem(made))


def _key(path: Path) -> Key:
    try:
        key = serialization.load_pem_private_key(read(path).encode(), password=None)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{path} is damaged or has a password; restore it from a backup"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic-curve key")
    return key


def read(path: Path) -> str:
    """Return the text of a PEM file; ConfigError if it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"{path} could not be read: {error.strerror}; restore it from a backup"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is damaged; restore it from a backup") from None
