"""Issue the deployment's CA, the server's certificate and the list of revoked ones.

One CA for one deployment, allowed to sign servers and no other CA. Sites trust it and nobody else,
so a certificate of a public CA is worthless here.
"""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedprompt.protocol.address import is_ip

Key = ec.EllipticCurvePrivateKey

CA_YEARS = 10
DAYS = 397  # of the server's certificate; what browsers take at most
_LOCAL = ("localhost", "127.0.0.1", "::1")  # Flower's own processes dial these
_BACKDATED = timedelta(hours=1)  # for sites whose clocks are behind
_HASH = hashes.SHA384()


def new_key() -> Key:
    """Return a new private key, EC P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def authority(key: Key, name: str, now: datetime | None = None) -> x509.Certificate:
    """Return the self-signed certificate of a CA that may sign servers, but no further CA."""
    usage = _usage(key_cert_sign=True, crl_sign=True)
    return (
        _builder(name, name, key, (now or datetime.now(UTC)), timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, _HASH)
    )


def server_certificate(
    key: Key,
    ca: x509.Certificate,
    ca_key: Key,
    hosts: Iterable[str],
    days: int = DAYS,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return a certificate for a server that is dialled as any of ``hosts`` or on this machine."""
    names = list(dict.fromkeys([*hosts, *_LOCAL]))
    issuer = _name(ca.subject)
    return (
        _builder(names[0][:64], issuer, key, now or datetime.now(UTC), timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in names]), False)
        .add_extension(_authority_id(ca), critical=False)
        .sign(ca_key, _HASH)
    )


def revocation_list(
    ca: x509.Certificate,
    ca_key: Key,
    serials: Iterable[tuple[int, datetime]],
    now: datetime | None = None,
) -> x509.CertificateRevocationList:
    """Return the CA's list of serial numbers that are void, and since when.

    It is valid as long as the CA: sites get it in their invitations, there is no place to fetch it.
    """
    moment = now or datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(moment - _BACKDATED)
        .next_update(ca.not_valid_after_utc)
        .add_extension(_authority_id(ca), critical=False)
        .add_extension(x509.CRLNumber(int(moment.timestamp())), critical=False)
    )
    for serial, since in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ca_key, _HASH)


def pem(made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """Return a certificate or a list as PEM."""
    return made.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key) -> bytes:
    """Return a private key as PEM, PKCS 8, not encrypted: its file is 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def ssh_pair(key: Key) -> tuple[str, str]:
    """Return a site's private key and its public half as OpenSSH texts, as Flower reads them."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode(), public.decode()


def _builder(
    subject: str, issuer: str, key: Key, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(subject))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


def _authority_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_id)


def _general(host: str) -> x509.GeneralName:
    return (
        x509.IPAddress(ipaddress.ip_address(host))
        if is_ip(host)
        else x509.DNSName(host.rstrip(".").lower())
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
