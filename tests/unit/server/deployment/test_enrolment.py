import stat

import pytest
from cryptography.hazmat.primitives import serialization

from fedprompt.errors import BackboneError, ConfigError, StorageError
from fedprompt.protocol import certificates
from fedprompt.protocol import invitation as invitations
from server.deployment import enrolment, sites
from server.deployment.folder import DeploymentFolder
from tests.paperwork import CLASSES, deployment


@pytest.fixture
def folder(tmp_path, clip, monkeypatch) -> DeploymentFolder:
    monkeypatch.setattr(enrolment, "shared_backbone", lambda config: clip)
    return deployment(tmp_path / "d", prompt__method="coop", data__template="a scan of {}.")


def test_a_invitation_says_what_its_deployment_is(folder, tmp_path, clip):
    path = tmp_path / "st-mary.fedprompt"
    made = enrolment.enrol(folder, "st-mary", 120, path)
    read = invitations.read_file(path)
    assert read == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (read.name, read.number, read.address) == ("st-mary", 0, "127.0.0.1:9092")
    assert (read.classes, read.template, read.method) == (CLASSES, "a scan of {}.", "coop")
    assert (read.backbone.sha256, read.tokenizer) == (clip.fingerprint, clip.tokenizer_fingerprint)
    assert read.fingerprint == certificates.fingerprint(folder.ca_certificate.read_text())
    assert read.crl == folder.revocations.read_text()


def test_the_private_half_of_the_key_is_in_the_invitation_and_nowhere_else(folder, tmp_path):
    made = enrolment.enrol(folder, "st-mary", 0, tmp_path / "b")
    (site,) = sites.read(folder.path)
    public = serialization.load_ssh_public_key(site.key.encode())
    assert public == certificates.private_key(made.key).public_key()
    inner = made.key.splitlines()[3]
    holding = [p for p in tmp_path.rglob("*") if p.is_file() and inner in p.read_text()]
    assert holding == [tmp_path / "b"]


def test_each_site_has_a_key_of_its_own(folder, tmp_path):
    first = enrolment.enrol(folder, "a", 0, tmp_path / "a")
    second = enrolment.enrol(folder, "b", 0, tmp_path / "b")
    assert first.key != second.key
    assert (first.number, second.number) == (0, 1)


def test_a_file_is_not_overwritten_and_nobody_enrolled(folder, tmp_path):
    (tmp_path / "b").write_text("precious")
    with pytest.raises(ConfigError, match="exists; give another --output"):
        enrolment.enrol(folder, "st-mary", 0, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"
    assert sites.read(folder.path) == []


def test_a_name_that_is_taken_is_refused_before_the_backbone_is_loaded(
    folder, tmp_path, monkeypatch
):
    enrolment.enrol(folder, "st-mary", 0, tmp_path / "b")
    monkeypatch.setattr(enrolment, "shared_backbone", lambda config: pytest.fail("it was loaded"))
    with pytest.raises(ConfigError, match="enrolled already"):
        enrolment.enrol(folder, "st-mary", 0, tmp_path / "c")


def test_without_the_cas_key_nobody_can_be_enrolled(folder, tmp_path):
    folder.ca_key.unlink()
    with pytest.raises(ConfigError, match=r"put the CA's key back"):
        enrolment.enrol(folder, "st-mary", 0, tmp_path / "b")
    assert sites.read(folder.path) == []


def test_a_backbone_that_cannot_be_hashed_stops_before_anything_is_written(
    folder, tmp_path, monkeypatch
):
    def fail(config):
        raise BackboneError("no such model")

    monkeypatch.setattr(enrolment, "shared_backbone", fail)
    with pytest.raises(BackboneError):
        enrolment.enrol(folder, "st-mary", 0, tmp_path / "b")
    assert sites.read(folder.path) == []


def test_a_invitation_that_cannot_be_written_leaves_a_refused_key(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        enrolment.enrol(folder, "st-mary", 0, tmp_path / "file" / "b")
    assert [site.revoked for site in sites.read(folder.path)] == [True]
    assert enrolment.enrol(folder, "st-mary", 0, tmp_path / "b").number == 1
