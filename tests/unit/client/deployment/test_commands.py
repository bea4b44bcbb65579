"""The verbs of flower-client as a person types them, without a server."""

import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from client.deployment import join, preflight, supervisor
from client.deployment.command import VERBS, group
from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from client.deployment.tls_probe import ProbeResult
from client.features.encode import store_key
from client.features.feature_store import FeatureStore
from fedprompt.backbone import load as backbones
from fedprompt.backbone.clip import FrozenClip
from fedprompt.command_line import resolve
from fedprompt.data import load
from fedprompt.protocol import invitation as invitations
from fedprompt.protocol.invitation import Invitation
from fedprompt.storage import write_atomic
from server.deployment import issuer
from tests.enrolled import invitation, rule, site
from tests.pictures import image_folder

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def alone(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "shared_backbone", lambda config: clip)
    found = ProbeResult(datetime.now(UTC) + timedelta(days=300), 0.2)
    monkeypatch.setattr(preflight.tls_probe, "probe", lambda *_: found)
    load.inspect.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", CLASSES, 10)


@pytest.fixture
def packed(tmp_path: Path, clip: FrozenClip) -> Path:
    """Return the file of an invitation."""
    ca_key = issuer.new_key()
    ca = issuer.authority(ca_key, "a test")
    crl = issuer.revocation_list(ca, ca_key, [])
    pem = {"ca": issuer.pem(ca).decode(), "crl": issuer.pem(crl).decode()}
    write_atomic(
        tmp_path / "north.fedprompt", invitations.pack(invitation(CLASSES, clip, **pem), ca_key)
    )
    return tmp_path / "north.fedprompt"


def run(*words: object) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


def joined(packed: Path, photos: Path, *words: object) -> Result:
    return run("join", packed, "--data", photos, "--folder", packed.parent / "site", *words)


def test_every_verb_is_there() -> None:
    assert list(VERBS) == ["join", "start", "doctor", "status", "egress"]
    assert all(callable(resolve(where)) for where, _ in VERBS.values())


def test_joining_checks_and_encodes(packed: Path, photos: Path, clip: FrozenClip) -> None:
    result = joined(packed, photos, "--no-start")
    assert result.exit_code == 0, result.output
    assert invitations.read_file(packed).fingerprint in result.output
    assert "20 images are encoded" in result.output
    digests = load.inspect.__wrapped__  # the store has them all: round one encodes none
    assert digests
    store = FeatureStore(store_key(clip))
    folder = SiteFolder(packed.parent / "site")
    assert join.encode(folder) == 20
    with store._open() as database:
        assert database.execute("select count(*) from features").fetchone() == (20,)


def test_joining_starts(packed: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[SiteFolder] = []
    monkeypatch.setattr(join, "take_part", started.append)
    assert joined(packed, photos).exit_code == 0
    assert [folder.path for folder in started] == [packed.parent / "site"]


def test_a_failed_check_starts_nothing(
    packed: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "take_part", lambda _: pytest.fail("it started"))
    (photos / "dog").rename(photos / "wolf")
    result = joined(packed, photos)
    assert result.exit_code == 3
    assert "not ready: images" in result.output
    assert "nothing was sent" in result.output


def test_another_ca_than_expected_is_refused_before_anything_is_written(
    packed: Path, photos: Path
) -> None:
    found = invitations.read_file(packed).fingerprint
    result = joined(packed, photos, "--fingerprint", "ab" * 32)
    assert result.exit_code == 2
    assert found in result.output
    assert not (packed.parent / "site").exists()
    pairs = ":".join(found[i : i + 2] for i in range(0, 64, 2)).upper()
    assert joined(packed, photos, "--no-start", "--fingerprint", pairs).exit_code == 0


def test_a_changed_invitation_is_refused(packed: Path, photos: Path) -> None:
    packed.write_bytes(packed.read_bytes().replace(b"127.0.0.1", b"127.0.0.2"))
    result = joined(packed, photos)
    assert result.exit_code == 2
    assert "changed on the way" in result.output


def test_a_second_join_goes_on_and_other_images_are_refused(
    packed: Path, photos: Path, tmp_path: Path
) -> None:
    joined(packed, photos, "--no-start")
    folder = SiteFolder(packed.parent / "site")
    rule(folder, "min_sites", "4")
    key = folder.key.read_bytes()
    assert "4 sites at least" in joined(packed, photos, "--no-start").output
    folder.egress.touch()  # something has left this site
    result = joined(packed, image_folder(tmp_path / "others", CLASSES, 2), "--no-start")
    assert result.exit_code == 2
    assert "names the images" in result.output
    assert folder.key.read_bytes() == key


def test_wrong_images_can_be_corrected_while_nothing_has_left(
    packed: Path, photos: Path, tmp_path: Path
) -> None:
    wrong = image_folder(tmp_path / "wrong", ("cow", "sheep"), 2)
    assert joined(packed, wrong, "--no-start").exit_code == 3
    folder = SiteFolder(packed.parent / "site")
    before = folder.toml.read_text()
    result = joined(packed, photos, "--no-start")
    assert result.exit_code == 0, result.output
    assert f"{photos.resolve()} in place of {wrong.resolve()}" in result.output
    assert folder.toml.read_text() == before.replace(str(wrong.resolve()), str(photos.resolve()))
    assert folder.toml.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def folder(tmp_path: Path, photos: Path, clip: FrozenClip) -> SiteFolder:
    made: Invitation = invitation(CLASSES, clip)
    return site(tmp_path / "north", photos, made)


def test_doctor_repeats_the_checks(folder: SiteFolder, photos: Path) -> None:
    assert run("doctor", folder.path).exit_code == 0
    rule(folder, "methods", "[]")
    result = run("doctor", folder.path, "--json")
    assert result.exit_code == 14
    found = json.loads(result.stdout.splitlines()[0])["findings"]
    assert [f["name"] for f in found if f["status"] == "failed"] == ["policy"]


def filled(folder: SiteFolder) -> EgressLog:
    log = EgressLog(folder.egress)
    array = {"name": "ctx", "shape": [4, 8], "dtype": "float32", "norm": 0.5, "sha256": "c" * 64}
    log.append({"kind": "query", "round": None, "bytes": 50, "identity": {"version": "1"}})
    for number in (1, 2, 2):
        told = {"kind": "train", "run": "r", "round": number, "bytes": 100, "arrays": [array]}
        log.append({**told, "metrics": {"loss": 0.25}})
    error = {"kind": "train", "run": "r", "round": 3, "bytes": 10}
    log.append({**error, "error": "refused by the site's policy: min_sites"})
    return log


def test_status_tells_rounds_bytes_and_the_last_refusal(folder: SiteFolder) -> None:
    filled(folder)
    found = json.loads(run("status", folder.path, "--json").stdout)
    assert (found["rounds"], found["answers"], found["bytes_today"]) == (2, 5, 360)
    assert found["last_refusal"].endswith("min_sites")
    assert found["running"] is False
    assert "bytes_today       360" in run("status", folder.path).output


def test_egress_lists_what_left_and_shows_a_change(folder: SiteFolder) -> None:
    log = filled(folder)
    result = run("egress", folder.path)
    assert result.exit_code == 0
    assert "ctx 4x8 float32 norm 0.5 sha256 cccccccccccc, loss=0.25" in result.output
    assert "360 bytes in 5 answers" in result.output
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    result = run("egress", folder.path, "--json")
    assert result.exit_code == 12
    assert json.loads(result.stdout.splitlines()[0])["faults"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F34_a_signal_ends_the_service_without_an_error(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seen: list[bool] = []

    class Told:
        def __init__(self, _: SiteFolder) -> None: ...

        def run(self, stopped: threading.Event) -> None:
            signal.raise_signal(number)
            seen.append(stopped.wait(60))

    monkeypatch.setattr(supervisor, "Supervisor", Told)
    monkeypatch.setattr(supervisor.logs, "configure", lambda *_, **__: None)
    before = signal.getsignal(number)
    supervisor.take_part(folder)
    assert seen == [True]
    assert signal.getsignal(number) is before
