from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedprompt.data.folder import read_folder
from fedprompt.errors import DataError

MakeFolder = Callable[[Path, Mapping[str, int]], Path]


def test_a_class_is_a_folder_in_sorted_order(tmp_path: Path, make_folder: MakeFolder) -> None:
    splits = read_folder(make_folder(tmp_path, {"owl": 2, "cat": 1}))
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [0, 1, 1]
    assert [splits.train.source.name(i) for i in range(3)] == [
        "cat/0.png",
        "owl/0.png",
        "owl/1.png",
    ]
    assert splits.train.source.content(0) == (tmp_path / "cat/0.png").read_bytes()
    assert (splits.test, splits.numbered, splits.verified) == (None, False, False)


@pytest.mark.parametrize("test", ["test", "testing", "val", "valid", "validation"])
def test_split_folders(tmp_path: Path, make_folder: MakeFolder, test: str) -> None:
    make_folder(tmp_path / "train", {"cat": 2, "owl": 1})
    make_folder(tmp_path / test, {"owl": 1, "yak": 1})
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "owl", "yak")
    assert splits.train.labels.tolist() == [0, 0, 1]
    assert splits.test is not None
    assert splits.test.labels.tolist() == [1, 2]
    assert splits.test.source.name(1) == f"{test}/yak/0.png"


def test_test_goes_before_val(tmp_path: Path, make_folder: MakeFolder) -> None:
    for name, count in (("train", 1), ("val", 2), ("test", 3)):
        make_folder(tmp_path / name, {"cat": count, "owl": 1})
    splits = read_folder(tmp_path)
    assert splits.test is not None
    assert len(splits.test.labels) == 4


def test_train_may_be_a_class_among_others(tmp_path: Path, make_folder: MakeFolder) -> None:
    assert read_folder(make_folder(tmp_path, {"train": 1, "bus": 1})).classes == ("bus", "train")


def test_other_and_hidden_files_are_passed_over(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"cat": 1, "owl": 1})
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat/notes.txt").write_text("no image")
    (tmp_path / "cat/.hidden.png").write_bytes(b"")
    (tmp_path / "cat/.cache").mkdir()
    (tmp_path / "cat/.cache/1.png").write_bytes(b"")
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [0, 1]


def test_images_lie_at_any_depth_and_suffixes_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "cat/a/b").mkdir(parents=True)
    (tmp_path / "cat/a/b/1.JPG").write_bytes(b"1")
    (tmp_path / "owl").mkdir()
    splits = read_folder(tmp_path)
    assert splits.train.source.name(0) == "cat/a/b/1.JPG"
    assert splits.classes == ("cat", "owl")  # an empty class is found; load judges it


def test_a_linked_class_folder_is_followed(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path / "store", {"cat": 1})
    make_folder(tmp_path / "photos", {"owl": 1})
    (tmp_path / "photos/cat").symlink_to(tmp_path / "store/cat")
    assert read_folder(tmp_path / "photos").train.labels.tolist() == [0, 1]


def test_no_class_folders(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="no class folders; expected"):
        read_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="train has no class folders"):
        read_folder(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be read.*data\.source"):
        read_folder(tmp_path / "nowhere")
