from pathlib import Path

import pytest

from fedprompt.data import files
from fedprompt.data.files import Files, inside
from fedprompt.errors import DataError


def test_content_and_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    found = Files(tmp_path, ["a.png"])
    assert (found.content(0), found.name(0)) == (b"a", "a.png")


@pytest.mark.parametrize("name", ["missing.png", "", "a\0b"])
def test_a_missing_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        Files(tmp_path, [name]).content(0)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 3)
    (tmp_path / "a.png").write_bytes(b"four")
    with pytest.raises(DataError, match="larger than 3 bytes"):
        Files(tmp_path, ["a.png"]).content(0)


@pytest.mark.parametrize("text", ["a/b.png", "./a/b.png", "a/c/../b.png"])
def test_paths_inside_are_kept(tmp_path: Path, text: str) -> None:
    assert inside(tmp_path.resolve(), text) == "a/b.png"


def test_an_absolute_path_inside_is_kept(tmp_path: Path) -> None:
    assert inside(tmp_path.resolve(), str(tmp_path.resolve() / "a.png")) == "a.png"


@pytest.mark.parametrize("text", ["../x.png", "/etc/passwd", "a/../../x.png", ".."])
def test_F33_a_path_that_leaves_its_folder_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"leads out of .*data\.root"):
        inside(tmp_path.resolve(), text)


def test_F33_a_link_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out of"):
        inside(root, "out/secret.png")


def test_no_path_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no path"):
        inside(tmp_path, "a\0b")
