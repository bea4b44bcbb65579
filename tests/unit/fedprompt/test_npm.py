import gzip
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedprompt import npm
from fedprompt.errors import DataError
from fedprompt.npm import Package, fetch_files
from tests.npm_registry import Member, file, publish, publish_files, tarball


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(npm, "REGISTRY", tmp_path.as_uri())
    return tmp_path


def everything(name: str) -> bool:
    return True


def test_the_address_is_the_registrys() -> None:
    package = Package(name="@scope/thing", version="1.2.3", integrity="", size=0)
    assert package.address == "https://registry.npmjs.org/@scope/thing/-/thing-1.2.3.tgz"
    plain = Package(name="thing", version="2.0.0", integrity="", size=0)
    assert plain.address == "https://registry.npmjs.org/thing/-/thing-2.0.0.tgz"


def test_wanted_files_come_by_their_names(root: Path) -> None:
    files = {"a/1.png": b"one", "a/2.png": b"", "LICENSE": b"free"}
    package = publish_files(root, "@scope/thing", "1.0.0", files)
    assert fetch_files(package, everything) == files
    assert fetch_files(package, lambda name: name.startswith("a/1")) == {"a/1.png": b"one"}


def test_names_are_no_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "here").mkdir()
    monkeypatch.chdir(root / "here")
    names = ["../up.png", "/tmp/absolute.png", "plain.png"]  # noqa: S108
    package = publish(root, "thing", "1.0.0", tarball([file(name, b"x") for name in names]))
    assert set(fetch_files(package, everything)) == set(names)
    assert list((root / "here").iterdir()) == []
    assert not (root / "up.png").exists()


def special(name: str, kind: bytes, target: str = "") -> Member:
    member = tarfile.TarInfo(f"package/{name}")
    member.type, member.linkname = kind, target
    return member, b""


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_only_regular_files_are_taken(root: Path, kind: bytes) -> None:
    members = [special("x.png", kind, "/etc/passwd"), file("y.png", b"y")]
    package = publish(root, "thing", "1.0.0", tarball(members))
    assert fetch_files(package, lambda name: name == "y.png") == {"y.png": b"y"}
    with pytest.raises(DataError, match=r"thing 1\.0\.0: package/x\.png is no regular file"):
        fetch_files(package, everything)


def test_the_largest_file_is_bounded(root: Path) -> None:
    package = publish_files(root, "thing", "1.0.0", {"big": b"eleven byte"})
    assert fetch_files(replace(package, largest=11), everything)
    with pytest.raises(DataError, match="big has 11 bytes; expected 10 at most"):
        fetch_files(replace(package, largest=10), everything)


def test_what_is_unpacked_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = publish_files(root, "thing", "1.0.0", {"big": b"eleven byte"})
    assert fetch_files(package, everything)
    monkeypatch.setattr(npm, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(DataError, match="the archive holds more than 10 bytes"):
        fetch_files(package, everything)


def test_another_archive_is_refused_before_it_is_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = publish_files(root, "thing", "1.0.0", {"a": b"as pinned"})
    path = root / "thing/-/thing-1.0.0.tgz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(tarfile, "open", fail)
    with pytest.raises(DataError, match=r"integrity sha512-.*; expected sha512-"):
        fetch_files(package, everything)


def test_a_longer_archive_ends_the_download(root: Path) -> None:
    package = publish_files(root, "thing", "1.0.0", {"a": b"as pinned"})
    with (root / "thing/-/thing-1.0.0.tgz").open("ab") as archive:
        archive.write(bytes(10))
    with pytest.raises(DataError, match=f"longer than the pinned {package.size} bytes"):
        fetch_files(package, everything)


def test_a_slow_download_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = publish_files(root, "thing", "1.0.0", {"a": b"1"})
    monkeypatch.setattr(npm, "_SECONDS", -1.0)
    with pytest.raises(DataError, match=rf"{package.size} of {package.size} bytes came in -1 s"):
        fetch_files(package, everything)


def test_a_registry_that_does_not_answer_is_named(root: Path) -> None:
    package = Package(name="@scope/none", version="1.0.0", integrity="sha512-", size=9)
    with pytest.raises(DataError, match=r"@scope/none 1\.0\.0 from file:.*No such file"):
        fetch_files(package, everything)


@pytest.mark.parametrize("cut", [1, 30, 600, 1500])
def test_a_pinned_archive_that_is_broken(root: Path, cut: int) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:") as opened:
        member, content = file("a", bytes(range(256)) * 4)
        opened.addfile(member, io.BytesIO(content))
    package = publish(root, "thing", "1.0.0", gzip.compress(plain.getvalue()[:cut]))
    with pytest.raises(DataError, match=r"thing 1\.0\.0"):
        fetch_files(package, everything)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600), st.integers(0, 400))
@example(b"", 3)
@example(b"\x04", 3)
def test_any_archive_raises_data_errors_only(root: Path, noise: bytes, place: int) -> None:
    good = tarball([file("a", b"1" * 300), file("b", b"2" * 300)])
    for content in (noise, good[:place] + noise, good[:place] + noise + good[place:]):
        package = publish(root, "thing", "1.0.0", content)
        try:
            files = fetch_files(package, everything)
        except DataError:
            continue
        assert all(isinstance(part, bytes) for part in files.values())
