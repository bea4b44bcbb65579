import stat

import pytest

from fedprompt.errors import ConfigError
from fedprompt.protocol import certificates
from server.deployment import credentials, issuer
from server.deployment.folder import DeploymentFolder


@pytest.fixture
def folder(tmp_path) -> DeploymentFolder:
    made = DeploymentFolder(tmp_path)
    credentials.create(made, "fed.example.org")
    return made


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_keys_are_readable_by_their_owner_alone(folder):
    assert mode(folder.ca_key) == mode(folder.key) == 0o600
    credentials.renew(folder, "fed.example.org", 10, revoke_old=True)
    assert mode(folder.ca_key) == mode(folder.key) == 0o600


def test_what_was_made_fits_together(folder):
    credentials.check(folder)
    told = credentials.validity(folder, "fed.example.org")
    assert (told.days, told.fault, told.warning) == (396, None, None)
    assert "not for other.example.org" in credentials.validity(folder, "other.example.org").fault


def test_renewal_changes_key_and_certificate_and_keeps_the_ca(folder):
    before = [p.read_bytes() for p in (folder.key, folder.certificate, folder.ca_certificate)]
    told = credentials.renew(folder, "fed.example.org", 20, revoke_old=False)
    after = [p.read_bytes() for p in (folder.key, folder.certificate, folder.ca_certificate)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]
    assert told.warning == "the server's certificate expires in 19 days"
    assert len(credentials_revoked(folder)) == 0
    credentials.check(folder)


def credentials_revoked(folder) -> list[int]:
    listed = certificates.revocations(
        folder.revocations.read_text(), folder.ca_certificate.read_text()
    )
    return [entry.serial_number for entry in listed]


def test_F16_a_revoked_certificate_is_not_used_again(folder):
    old = folder.certificate.read_bytes(), folder.key.read_bytes()
    serials = [credentials.server_certificate(folder).serial_number]
    assert credentials.renew(folder, "fed.example.org", 10, revoke_old=True).fault is None
    assert credentials_revoked(folder) == serials
    serials.append(credentials.server_certificate(folder).serial_number)
    credentials.renew(folder, "fed.example.org", 10, revoke_old=True)
    assert credentials_revoked(folder) == serials
    folder.certificate.write_bytes(old[0])
    folder.key.write_bytes(old[1])
    told = credentials.validity(folder, "fed.example.org")
    assert told.fault == "the server's certificate was revoked"


def test_the_cas_key_may_be_elsewhere_and_then_says_so(folder):
    folder.ca_key.rename(folder.path.parent / "safe.key")
    credentials.check(folder)  # what `start` needs is here
    with pytest.raises(ConfigError, match=r"put the CA's key back for this command"):
        credentials.renew(folder, "fed.example.org", 10, revoke_old=False)


def test_keys_that_do_not_belong_together_are_refused(folder):
    other = DeploymentFolder(folder.path / "other")
    credentials.create(other, "fed.example.org")
    good = folder.key.read_bytes()
    folder.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigError, match="does not belong to"):
        credentials.check(folder)
    folder.key.write_bytes(good)
    folder.ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    with pytest.raises(ConfigError, match="is not signed by"):
        credentials.check(folder)
    with pytest.raises(ConfigError, match="is not the key of"):
        credentials.ca_key(folder)


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key"])
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_damage_is_told_in_one_line(folder, name, damage):
    (folder.path / name).write_bytes(damage)
    with pytest.raises(ConfigError) as refused:
        credentials.check(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key", "ca.crl"])
def test_a_missing_file_is_named(folder, name):
    (folder.path / name).unlink()

    def look() -> None:
        credentials.check(folder)
        credentials.validity(folder, "fed.example.org")

    with pytest.raises(ConfigError, match=f"{name} could not be read: No such file"):
        look()


def test_an_rsa_key_is_none_of_ours(folder):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    folder.key.write_bytes(pem)
    with pytest.raises(ConfigError, match="not an elliptic-curve key"):
        credentials.check(folder)
    assert issuer.DAYS == 397
