import hashlib
import json
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedprompt import npm
from fedprompt.data import emoji as module
from fedprompt.data.emoji import read_emoji
from fedprompt.data.emoji_vendors import VENDORS, Vendor
from fedprompt.data.load import inspect, share
from fedprompt.data.splits import Split
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig
from tests.npm_registry import publish_files

Encode = Callable[..., bytes]
BIRDS = [f"1f4{n:02x}" for n in range(15)]
CLOCKS = [f"23{n:02x}-fe0f" for n in range(12)]
DRINKS = [f"1f9{n:02x}" for n in range(12)]  # one of which nobody but twemoji drew
OTHERS = {"1f1e6-1f1fa": "country-flag", "1f984": "no-subgroup-of-ours"}
SUBGROUPS = (
    dict.fromkeys(BIRDS, "animal-bird")
    | dict.fromkeys(CLOCKS, "time")
    | dict.fromkeys(DRINKS, "drink")
    | OTHERS
)
PALE = "1f400-1f3fb"
# SHA-256 of the names of the real test emoji
UNSEEN = "9e8bb1f11c4d5367481553ac9e9603d65ef3fe2d7aa9ba534851a1d2f9a8a100"


def content_hash(files: dict[str, bytes]) -> str:
    """Return the digest of a vendor's images: the SHA-256 of a JSON table of SHA-256."""
    table = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(
        json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def images_of(vendor: Vendor, number: int, encode: Encode) -> dict[str, bytes]:
    """Draw noise for each emoji, other noise for each vendor."""
    kind = vendor.suffix.removeprefix(".").upper()
    drawn = {}
    for place, codes in enumerate([*SUBGROUPS, PALE]):
        if codes != DRINKS[3] or vendor.name == "twemoji":
            drawn[vendor.file(codes)] = encode(1000 * number + place + 1, kind)
    return drawn


@pytest.fixture
def registry(tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish all vendors' packages with 42 emoji, pinned."""
    entries = [
        {"unified": codes.upper(), "subcategory": subgroup, "short_name": f"name of {codes}"}
        for codes, subgroup in SUBGROUPS.items()
    ]
    catalogue = json.dumps(entries).encode()
    vendors = []
    for number, vendor in enumerate(VENDORS):
        images = images_of(vendor, number, encode)
        files = {vendor.folder + name: content for name, content in images.items()}
        files |= {name: f"{vendor.name}'s terms".encode() for name in vendor.papers}
        files |= dict.fromkeys(vendor.extra, catalogue) | {"sheets/32.png": b"not wanted"}
        name = f"@fake/{vendor.name}"
        kept = {n: c for n, c in images.items() if "1f3fb" not in n and not n.startswith("1f1e6")}
        kept |= dict.fromkeys(vendor.extra, catalogue)
        package = publish_files(tmp_path / "registry", name, "1.0.0", files)
        vendors.append(replace(vendor, package=package, sha256=content_hash(kept)))
    monkeypatch.setattr(module, "VENDORS", tuple(vendors))
    monkeypatch.setattr(npm, "REGISTRY", (tmp_path / "registry").as_uri())
    return tmp_path / "registry"


def names(split: Split) -> list[str]:
    return [split.source.name(index) for index in range(len(split.labels))]


def codes(split: Split, domain: int) -> list[str]:
    """Return the emoji that a vendor drew, by the names that people read."""
    rows = np.flatnonzero(split.domains == domain)
    return [split.source.name(int(row)).split("(name of ")[1].rstrip(")") for row in rows]


def test_kinds_are_classes_and_vendors_are_domains(registry: Path, encode: Encode) -> None:
    splits = read_emoji()
    assert splits.classes == ("bird", "clock")  # eleven drinks are common to all: too few
    assert splits.domain_names == ("twemoji", "noto", "fluent", "emojione-bw")
    assert (splits.numbered, splits.verified) == (True, True)
    assert splits.test is not None
    for split in (splits.train, splits.test):
        for index, name in enumerate(names(split)):
            vendor = VENDORS[split.domains[index]]
            one = codes(split, int(split.domains[index]))
            file = name.split(" (")[0].removeprefix(f"{vendor.name}/")
            drawn = images_of(vendor, int(split.domains[index]), encode)
            assert split.source.content(index) == drawn[file]
            kind = "bird" if any(vendor.file(c) == file for c in BIRDS) else "clock"
            assert splits.classes[split.labels[index]] == kind
            assert len(one) == len(set(one))


def test_the_same_emoji_are_kept_from_training_in_every_hand(registry: Path) -> None:
    splits = read_emoji()
    assert splits.test is not None
    seen = [codes(splits.train, domain) for domain in range(4)]
    unseen = [codes(splits.test, domain) for domain in range(4)]
    assert seen == [seen[0]] * 4
    assert unseen == [unseen[0]] * 4
    assert not set(seen[0]) & set(unseen[0])
    assert set(seen[0]) | set(unseen[0]) == {*BIRDS, *CLOCKS}
    assert len(set(unseen[0]) & set(BIRDS)) == 5  # a third of each kind
    assert len(set(unseen[0]) & set(CLOCKS)) == 4


def test_fetched_once_with_the_licences_beside(
    registry: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_emoji()
    for vendor in VENDORS:
        folder = own_cache / "emoji" / vendor.name
        found = {path.name for path in folder.iterdir()}
        assert found == {"images.zip", "CREDIT.txt", *vendor.papers}
        assert (folder / "CREDIT.txt").read_text() == f"{vendor.credit}.\n"
        assert (folder / vendor.papers[0]).read_text() == f"{vendor.name}'s terms"
        with zipfile.ZipFile(folder / "images.zip") as archive:
            kept = {vendor.file(code) for code in SUBGROUPS if code != "1f1e6-1f1fa"}
            kept -= set() if vendor.name == "twemoji" else {vendor.file(DRINKS[3])}
            assert set(archive.namelist()) == kept | set(vendor.extra)
    monkeypatch.setattr(npm, "REGISTRY", "file:///nowhere")
    again = read_emoji()
    assert again.train.source.content(7) == first.train.source.content(7)


@pytest.mark.parametrize("damage", ["cut", "changed", "swollen", "other", "junk", "huge"])
def test_a_damaged_copy_is_fetched_again(
    registry: Path, own_cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_emoji()
    path = own_cache / "emoji" / "noto" / "images.zip"
    good = path.read_bytes()
    if damage == "cut":
        path.write_bytes(good[:-40])
    elif damage == "changed":
        path.write_bytes(good.replace(good[60:70], bytes(10), 1))
    elif damage == "swollen":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("1f400.png", bytes(10_000_000))
    elif damage == "other":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1f400.png", b"another picture")
    elif damage == "huge":
        monkeypatch.setattr(module, "_MAX_KEPT_BYTES", len(good) - 1)
    else:
        path.write_bytes(b"junk")
    again = read_emoji()
    assert names(again.train) == names(first.train)
    assert path.read_bytes() == good
    contents = [again.train.source.content(i) for i in range(len(again.train.labels))]
    assert contents == [first.train.source.content(i) for i in range(len(contents))]


def test_images_that_are_not_the_pinned_ones_are_refused_and_not_kept(
    registry: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors = [replace(v, sha256="0" * 64) if v.name == "noto" else v for v in module.VENDORS]
    monkeypatch.setattr(module, "VENDORS", tuple(vendors))
    with pytest.raises(DataError, match=r"emoji of noto .* hash [0-9a-f]{64}; expected 0{64}"):
        read_emoji()
    assert (own_cache / "emoji" / "twemoji").is_dir()
    assert not (own_cache / "emoji" / "noto").exists()


def test_without_internet(registry: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm, "REGISTRY", "file:///nowhere")
    with pytest.raises(
        DataError, match=r"emoji of twemoji could not .*Connect to .* copy .*emoji/twemoji from"
    ):
        read_emoji()
    assert not (own_cache / "emoji").exists()


def test_a_package_without_its_licence_is_refused(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors = [replace(vendor, papers=("COPYING",)) for vendor in module.VENDORS]
    monkeypatch.setattr(module, "VENDORS", tuple(vendors))
    with pytest.raises(DataError, match="emoji of twemoji could not be fetched: 'COPYING'"):
        read_emoji()


def test_a_simulation_of_one_vendor_a_site(registry: Path) -> None:
    config = DataConfig(source="emoji", partitioner="domain", holdout=0.25)
    assert inspect(config).notes == ()
    for site in range(5):
        images = share(config, site, 5)
        domain = site % 4
        vendor = VENDORS[domain].name
        assert images.train.domain_names[domain] == vendor
        everyone = [images.train.name(i) for i in range(len(images.train))]
        everyone += [images.holdout.name(i) for i in range(len(images.holdout))]
        assert {name.split("/")[0] for name in everyone} == {vendor}
        assert len(everyone) == (9 if domain == 0 else 18)  # two sites share twemoji


@pytest.mark.slow
def test_the_real_emoji_download_and_match_their_hashes() -> None:
    try:
        urllib.request.urlopen("https://registry.npmjs.org/openmoji", timeout=10).close()
    except OSError:
        pytest.skip("npm's registry cannot be reached from here")
    splits = read_emoji()
    assert splits.test is not None
    assert len(splits.classes) == 37
    assert np.bincount(splits.train.domains).tolist() == [565] * 4
    assert np.bincount(splits.test.domains).tolist() == [282] * 4
    every = [s.source.content(i) for s in (splits.train, splits.test) for i in range(len(s.labels))]
    assert len(set(every)) == len(every) == 3388  # nobody draws two emoji alike
    assert np.bincount(splits.train.labels).min() >= 4 * 8
    twemoji = sorted(names(splits.test)[:282])
    assert hashlib.sha256("\n".join(twemoji).encode()).hexdigest() == UNSEEN  # the split is fixed
