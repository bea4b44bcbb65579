"""Read and check keys, certificates and revocation lists that others wrote.

The cryptography library raises a dozen types of errors for malformed bytes; each reader here turns
them into one ConfigError.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedprompt.errors import ConfigError
from fedprompt.protocol.address import is_ip

Key = ec.EllipticCurvePrivateKey
WARN = timedelta(days=30)  # ahead of a certificate's end


@dataclass(frozen=True)
class Validity:
    """Whether a server's certificate can be used, and for how long (F16).

    Attributes
    ----------
    days
        Whole days until it expires; below 0 once it has.
    fault
        Why it cannot be used; None if it can.
    warning
        What is going to happen soon; None if nothing is.
    """

    days: int
    fault: str | None = None
    warning: str | None = None


def validity(
    server_certificate: x509.Certificate, host: str, now: datetime | None = None
) -> Validity:
    """Check a certificate's dates and host names."""
    moment = now or datetime.now(UTC)
    first, last = server_certificate.not_valid_before_utc, server_certificate.not_valid_after_utc
    days = (last - moment).days
    if moment > last:
        return Validity(days, f"the server's certificate expired on {last:%Y-%m-%d}")
    if moment < first:
        return Validity(
            days,
            f"the server's certificate is not valid before {first:%Y-%m-%d %H:%M} UTC, here it is "
            f"{moment:%Y-%m-%d %H:%M}; check the clocks",
        )
    names = hosts(server_certificate)
    wanted = str(ipaddress.ip_address(host)) if is_ip(host) else host.rstrip(".").lower()
    if wanted not in names:
        listed = ", ".join(sorted(names)) or "nobody"
        return Validity(days, f"the server's certificate is for {listed}, not for {host}")
    if last - moment < WARN:
        return Validity(days, warning=f"the server's certificate expires in {days} days")
    return Validity(days)


def hosts(server_certificate: x509.Certificate) -> set[str]:
    """Return the names and addresses a certificate is for, as `validity` compares them."""
    try:
        names = server_certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    numbers = {str(number) for number in names.get_values_for_type(x509.IPAddress)}
    return numbers | {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def certificate(pem: str) -> x509.Certificate:
    """Return a CA's certificate.

    Raises
    ------
    ConfigError
        It is none, or its key is not of the kind this project makes.
    """
    try:
        loaded = x509.load_pem_x509_certificate(pem.encode())
        is_ca = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        key = loaded.public_key()
    except Exception as error:
        raise ConfigError(f"the CA's certificate cannot be read: {_line(error)}") from None
    if not is_ca or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError("the CA's certificate is not of a CA with an elliptic-curve key")
    return loaded


def ca_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the key in a CA's certificate; errors as `certificate`."""
    key = certificate(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError("the CA's key is not an elliptic-curve key")
    return key


def private_key(pem: str) -> Key:
    """Return a site's private key from OpenSSH text.

    Raises
    ------
    ConfigError
        It is none, or not of curve P-384; the message quotes nothing of it.
    """
    try:
        key = serialization.load_ssh_private_key(pem.encode(), password=None)
    except Exception:
        raise ConfigError("the site's key cannot be read; expected an OpenSSH key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError("the site's key is not one of curve P-384")
    return key


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of a CA's certificate, 64 hexadecimal digits; errors as `certificate`."""
    return certificate(pem).fingerprint(hashes.SHA256()).hex()


def revocations(crl: str, ca: str) -> x509.CertificateRevocationList:
    """Return the list of certificates that a CA revoked.

    Raises
    ------
    ConfigError
        The list cannot be read, or another CA signed it.
    """
    key = ca_key(ca)
    try:
        revocation_list = x509.load_pem_x509_crl(crl.encode())
        signed = revocation_list.is_signature_valid(key)
    except Exception as error:
        raise ConfigError(f"the revocation list cannot be read: {_line(error)}") from None
    if not signed:
        raise ConfigError("the revocation list is not signed by the CA")
    return revocation_list


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
