"""How a site's TLS is set; servers that cannot be trusted are in tests/faults."""

import ssl
from pathlib import Path

import pytest

from client.deployment import tls
from fedprompt.errors import ConfigError
from server.deployment import issuer


@pytest.fixture
def issued(tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of a CA's certificate and of its list of revocations."""
    key = issuer.new_key()
    authority = issuer.authority(key, "a test")
    ca, crl = tmp_path / "ca.crt", tmp_path / "ca.crl"
    ca.write_bytes(issuer.pem(authority))
    crl.write_bytes(issuer.pem(issuer.revocation_list(authority, key, [])))
    return ca, crl


def test_one_ca_is_trusted_and_host_names_are_compared(issued: tuple[Path, Path]) -> None:
    made = tls.context(issued[0])
    assert len(made.get_ca_certs()) == 1  # none of the system's
    assert made.verify_mode == ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2


def test_revocations_are_asked_for_where_there_is_a_list(issued: tuple[Path, Path]) -> None:
    ca, crl = issued
    assert tls.context(ca, crl).verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert not tls.context(ca, crl.with_name("none.crl")).verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="join again with the bundle"):
        tls.context(path)
