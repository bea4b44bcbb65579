"""Certificates as OpenSSL sees them: handshakes on loopback, with Python's own ssl."""

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.deployment import issuer
from tests.paperwork import authority, crl


def files(folder, *, host="fed.example.org", days=10, now=None, ca_name="test CA"):
    """Write what a server and a site need; return the server's certificate."""
    key, (ca_key, ca) = issuer.new_key(), authority(ca_name)
    made = issuer.server_certificate(key, ca, ca_key, [host], days, now)
    (folder / "server.crt").write_bytes(issuer.pem(made))
    (folder / "server.key").write_bytes(issuer.key_pem(key))
    (folder / "ca.crt").write_bytes(issuer.pem(authority()[1]))
    return made


def handshake(folder, host: str, revoked: str = "") -> str:
    """Return the TLS version two ends of a socket agree on; raises as a site's end does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    site = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    site.verify_flags |= ssl.VERIFY_X509_STRICT
    if revoked:
        (folder / "ca.crl").write_text(revoked)
        site.load_verify_locations(cafile=str(folder / "ca.crl"))
        site.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    here, there = socket.socketpair()

    def serve() -> None:
        with suppress(OSError), server.wrap_socket(there, server_side=True) as wrapped:
            wrapped.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with here, site.wrap_socket(here, server_hostname=host) as wrapped:
            return str(wrapped.version())
    finally:
        there.close()
        thread.join(10)


@pytest.mark.parametrize("host", ["fed.example.org", "localhost", "127.0.0.1", "::1"])
def test_a_site_that_trusts_the_ca_shakes_hands(tmp_path, host):
    files(tmp_path)
    assert handshake(tmp_path, host, crl()) == "TLSv1.3"


def test_F16_openssl_refuses_another_host(tmp_path):
    files(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path, "other.example.org")


def test_F16_openssl_refuses_an_expired_certificate(tmp_path):
    files(tmp_path, days=1, now=datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        handshake(tmp_path, "localhost")


def test_F16_openssl_refuses_a_certificate_of_tomorrow(tmp_path):
    files(tmp_path, now=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(tmp_path, "localhost")


def test_F16_openssl_refuses_another_ca(tmp_path):
    files(tmp_path, ca_name="another CA")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(tmp_path, "localhost")


def test_F16_openssl_refuses_a_revoked_certificate(tmp_path):
    made = files(tmp_path)
    assert handshake(tmp_path, "localhost", crl(made.serial_number + 1))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        handshake(tmp_path, "localhost", crl(made.serial_number))


def test_the_ca_may_sign_servers_but_no_further_ca(tmp_path):
    _, ca = authority()
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True, True, 0,
    )  # fmt: skip
    years = (ca.not_valid_after_utc - ca.not_valid_before_utc) / timedelta(days=365)
    assert 10 <= years < 10.01


def test_keys_are_p384_and_serials_differ(tmp_path):
    first, second = files(tmp_path), files(tmp_path)
    assert first.serial_number != second.serial_number
    assert isinstance(first.public_key().curve, ec.SECP384R1)
    assert first.public_key() != second.public_key()
    assert (first.not_valid_after_utc - datetime.now(UTC)).days == 9


def test_a_sites_pair_is_what_flower_reads():
    private, public = issuer.ssh_pair(issuer.new_key())
    key = serialization.load_ssh_private_key(private.encode(), password=None)
    assert serialization.load_ssh_public_key(public.encode()) == key.public_key()
    assert public.startswith("ecdsa-sha2-nistp384 ")
