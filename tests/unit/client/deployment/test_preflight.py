"""F12, F13, F14 at the door: nothing is sent by a site that cannot take part."""

import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from client.deployment import preflight
from client.deployment.preflight import Finding, examine
from client.deployment.site_folder import SiteFolder
from client.deployment.tls_probe import ProbeResult
from fedprompt.backbone import load as backbones
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data import load
from fedprompt.errors import LinkError
from tests.conftest import tiny_clip
from tests.enrolled import invitation, rule, site
from tests.pictures import image_folder

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def alone(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "shared_backbone", lambda config: clip)
    greets(monkeypatch, ProbeResult(datetime.now(UTC) + timedelta(days=300), 0.2))
    load.inspect.cache_clear()


def greets(monkeypatch: pytest.MonkeyPatch, found: ProbeResult | Exception) -> None:
    def greet(*_: object) -> ProbeResult:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(preflight.tls_probe, "probe", greet)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", CLASSES, 10)


@pytest.fixture
def folder(tmp_path: Path, photos: Path, clip: FrozenClip) -> SiteFolder:
    return site(tmp_path / "north", photos, invitation(CLASSES, clip))


def look(folder: SiteFolder) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(folder)}


def failed(folder: SiteFolder) -> Finding:
    """Return the one check that failed."""
    found = [finding for finding in examine(folder) if finding.status == "failed"]
    assert len(found) == 1
    return found[0]


def test_a_site_that_fits_passes_every_check(folder: SiteFolder) -> None:
    found = look(folder)
    assert list(found) == list(preflight.CHECKS)
    assert {f.status for f in found.values()} <= {"ok", "note"}
    assert "16 to train on, 4 held out: cat 10, dog 10" in found["images"].detail
    assert "site north (number 3), issued 0 days ago" in found["invitation"].detail


@pytest.mark.parametrize(
    ("server", "way"),
    [
        ("fed.example.org:9092", "through"),
        ("fed.example.com:9092", "directly, without"),
        ("127.0.0.1:9092", "directly, without"),
    ],
)
def test_the_way_to_the_server_is_told_where_there_is_a_proxy(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch, server: str, way: str
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example.net:3128")
    monkeypatch.setenv("no_proxy", "example.com")
    folder.toml.write_text(folder.toml.read_text().replace("127.0.0.1:9092", server))
    told = f"{server} {way} the proxy http://proxy.example.net:3128 (https_proxy), certificate"
    assert look(folder)["server"].detail.startswith(told)


@pytest.mark.parametrize("what", ["CLIP", "tokenizer"])
def test_F12_another_backbone_or_tokenizer_is_refused_with_both_hashes(
    tmp_path: Path, photos: Path, clip: FrozenClip, what: str
) -> None:
    other = {"backbone": invitation(CLASSES, tiny_clip(seed=1)).backbone}
    fields = other if what == "CLIP" else {"tokenizer": "7" * 64}
    folder = site(tmp_path / "south", photos, invitation(CLASSES, clip, **fields))
    found = failed(folder)
    ours, theirs = (
        (clip.fingerprint, folder.invitation().backbone.sha256)
        if what == "CLIP"
        else (clip.tokenizer_fingerprint, "7" * 64)
    )
    assert found.name == "backbone"
    assert found.exit_code == 4
    assert what in found.detail
    assert ours in found.detail
    assert theirs in found.detail


def test_F13_another_class_is_refused_with_the_difference(folder: SiteFolder, photos: Path) -> None:
    (photos / "dog").rename(photos / "wolf")
    found = failed(folder)
    assert (found.name, found.exit_code) == ("images", 3)
    assert "'wolf'" in found.detail


def test_F13_another_order_or_list_of_ones_own_is_refused(
    folder: SiteFolder, photos: Path, tmp_path: Path
) -> None:
    for names, told in (
        (["dog", "cat"], "their order"),
        (["cat", "dog", "owl"], "only here: 'owl'"),
    ):
        own = tmp_path / f"{len(names)}.json"
        own.write_text(json.dumps(names))
        lines = [line for line in folder.toml.read_text().splitlines() if "class_names" not in line]
        text = "\n".join(lines).replace("[data]", f'[data]\nclass_names = "{own}"')
        folder.toml.write_text(text)
        found = failed(folder)
        assert (found.name, found.exit_code) == ("images", 2)
        assert told in found.detail


def test_a_site_may_call_its_folders_otherwise(
    folder: SiteFolder, photos: Path, tmp_path: Path
) -> None:
    (photos / "cat").rename(photos / "0001")
    own = tmp_path / "names.json"
    own.write_text(json.dumps({"0001": "cat", "dog": "dog"}))
    lines = [line for line in folder.toml.read_text().splitlines() if "class_names" not in line]
    folder.toml.write_text("\n".join(lines).replace("[data]", f'[data]\nclass_names = "{own}"'))
    assert look(folder)["images"].status == "ok"


def test_F14_another_version_is_refused_with_both(
    tmp_path: Path, photos: Path, clip: FrozenClip
) -> None:
    found = failed(site(tmp_path / "old", photos, invitation(CLASSES, clip, version="9.9.9")))
    assert (found.name, found.exit_code) == ("version", 2)
    assert "9.9.9" in found.detail
    assert version("fedprompt") in found.detail


def test_F27_unreadable_images_are_listed_and_too_many_refused(
    folder: SiteFolder, photos: Path
) -> None:
    folder.toml.write_text(
        folder.toml.read_text().replace("[data]", "[data]\nunreadable_share = 0.06")
    )
    (photos / "cat" / "0.png").write_bytes(b"none")
    found = look(folder)["images"]
    assert found.status == "note"
    assert "1 images cannot be read" in found.detail
    assert str(Path("cat", "0.png")) in found.detail
    load.inspect.cache_clear()
    for number in range(1, 4):
        (photos / "cat" / f"{number}.png").write_bytes(b"none")
    assert failed(folder).exit_code == 3


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [("servers", "[]", 14), ("methods", '["coop"]', 14), ("min_sites", "-1", 2)],
)
def test_a_policy_that_lets_nobody_in_is_told(
    folder: SiteFolder, key: str, value: str, code: int
) -> None:
    rule(folder, key, value)
    found = failed(folder)
    assert (found.name, found.exit_code) == ("policy", code)
    assert key in found.detail


def test_F16_a_certificate_that_ends_soon_is_told(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days, status in ((31.5, "ok"), (29.5, "note")):
        greets(monkeypatch, ProbeResult(datetime.now(UTC) + timedelta(days=days), 0.0))
        found = look(folder)["server"]
        assert found.status == status
    assert "29 days left" in found.detail


def test_a_server_that_cannot_be_reached_fails_once(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    greets(monkeypatch, LinkError("nothing listens there"))
    found = failed(folder)
    assert (found.name, found.exit_code) == ("server", 15)
    assert look(folder)["clock"].status == "note"


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(0.0, "ok"), (4.0, "note"), (7.0, "failed"), (-200.0, "note"), (-300.0, "failed")],
)
def test_F34_a_clock_that_flower_would_refuse_is_told_beforehand(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch, ahead: float, status: str
) -> None:
    """Flower takes signed timestamps from 5 s ahead to 305 s behind."""
    greets(monkeypatch, ProbeResult(datetime.now(UTC) + timedelta(days=300), ahead))
    found = look(folder)["clock"]
    assert found.status == status
    assert f"{abs(ahead):.0f} s" in found.detail


def test_the_limits_of_the_clock_are_flowers() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert preflight._AHEAD == SYSTEM_TIME_TOLERANCE
    assert preflight._BEHIND <= TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def test_a_log_that_was_tampered_with_is_told(folder: SiteFolder) -> None:
    folder.egress.write_text('{"before": "x"}\n')
    assert look(folder)["egress log"].status == "note"
