import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Literal

import pytest

from fedprompt import storage
from fedprompt.errors import StorageError
from fedprompt.storage import sync_folder, write_atomic


def fail(code: int):
    """Return a function that fails as the system does."""

    def raise_it(*_args: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    return raise_it


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_new_and_old_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"")
    assert listing(path.parent) == {"x.bin": b""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_bytes_are_on_disk_before_the_name_points_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return move(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "x", b"new")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("place", ["mkstemp", "fsync", "replace", "chmod"])
def test_f23_the_old_file_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    owner = {"mkstemp": tempfile, "fsync": os}.get(place, Path)
    with monkeypatch.context() as patched:
        patched.setattr(owner, place, fail(code))
        with pytest.raises(StorageError, match=os.strerror(code)) as caught:
            write_atomic(path, b"new")
    assert str(path) in str(caught.value)
    assert "nothing was changed" in str(caught.value)
    assert listing(tmp_path) == {"x": b"old"}


def test_f23_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        write_atomic(tmp_path / "file" / "x", b"new")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def interrupt(_descriptor: int) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(stop):
        write_atomic(tmp_path / "x", b"new")
    assert listing(tmp_path) == {}


def test_a_folder_that_cannot_be_synced_is_told_truly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is done by then: "nothing was changed" would be false."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fail(errno.EIO)()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        write_atomic(tmp_path / "x", b"new")
    assert "nothing was changed" not in str(caught.value)
    assert listing(tmp_path) == {"x": b"new"}


def test_sync_folder_closes_what_it_opens(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        sync_folder(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_where_no_folder_can_be_opened_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where the edge runs too: a swap, a signature, a card."""
    opened = os.open

    def windows(path: str, flags: int, *mode: int, **options: object) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", windows)
    monkeypatch.delattr(os, "O_DIRECTORY")
    write_atomic(tmp_path / "x", b"new")
    assert listing(tmp_path) == {"x": b"new"}


def unwritable(folder: Path) -> list[Path]:
    """Return places that no file system writes to, whoever asks."""
    (folder / "file").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    return [
        folder / ("y" * 300),
        folder / "new" / ("y" * 300),
        folder / ("y" * 300) / "new",
        folder / ("\N{SNOWMAN}" * 90),  # 270 bytes
        folder / "a\0b",
        folder / "file" / "below",
        folder / "file" / "far" / "below",
        Path("/proc/nothing/here"),
    ]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_that_cannot_be_written_is_refused_beforehand(
    tmp_path: Path, kind: Literal["file", "folder"], number: int
) -> None:
    place = unwritable(tmp_path)[number]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match="nothing was done yet"):
        storage.check_writable(place, kind)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StorageError):  # what is refused beforehand is refused later
        write_atomic(place, b"x")


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "new", tmp_path / "a" / "b", tmp_path / ("y" * 255)):
        storage.check_writable(place, "folder")
    assert list(tmp_path.iterdir()) == []
    write_atomic(tmp_path / ("y" * 255), b"x")  # also the longest name
    write_atomic(tmp_path / ("\N{SNOWMAN}" * 85), b"x")
    storage.check_writable(tmp_path / ("y" * 255), "file")


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file, expected a folder"):
        storage.check_writable(tmp_path / "file", "folder")
    with pytest.raises(StorageError, match="is a folder, expected a file"):
        storage.check_writable(tmp_path, "file")


def test_a_folder_that_may_only_be_read_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="Read-only file system; nothing was done yet"):
        storage.check_writable(tmp_path / "new", "folder")
