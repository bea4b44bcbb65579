from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedprompt.data.classes import spoken
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


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "Valid"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("Train Images", "Eval"),
        ("trainset", "validate"),
        ("data-train", "Evaluation"),
    ],
)
def test_names_of_splits_in_any_case(
    tmp_path: Path, make_folder: MakeFolder, train: str, test: str
) -> None:
    make_folder(tmp_path / train, {"cat": 2, "owl": 1})
    make_folder(tmp_path / test, {"cat": 1, "owl": 1})
    (tmp_path / "__MACOSX").mkdir()
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [0, 0, 1]
    assert splits.test is not None
    assert splits.test.labels.tolist() == [0, 1]
    assert splits.notes == ()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train", "test", "extra"), "the folders 'extra' beside the splits 'test', 'train'"),
        (("Training", "notes"), "the folders 'notes' beside the splits 'Training'"),
        (("cat", "dog", "TEST"), "the folders 'cat', 'dog' beside the splits 'TEST'"),
        (("bus", "train"), "the folders 'bus' beside the splits 'train'"),
        (("test", "val"), "the splits 'test', 'val' and none for training"),
        (("train", "Training", "test"), "'Training' and 'train' both mean the train split"),
        (("train", "test", "eval"), "'eval' and 'test' both mean the test split"),
        (("seg_train", "seg_test", "seg_pred"), "'seg_test' and 'seg_train', which seem to be"),
        (("trainA", "trainB", "testA"), "'testA' and 'trainA', which seem to be"),
        (("ct train", "ct val"), "'ct train' and 'ct val', which seem to be splits"),
    ],
)
def test_splits_never_become_classes_unless_the_list_says_so(
    tmp_path: Path, make_folder: MakeFolder, names: tuple[str, ...], says: str
) -> None:
    for name in names:
        make_folder(tmp_path / name, {"cat": 1, "owl": 1})
    with pytest.raises(DataError, match=says) as caught:
        read_folder(tmp_path)
    assert "data.class_names = " in str(caught.value)
    with pytest.raises(DataError, match=says):
        read_folder(tmp_path, {spoken(name) for name in names[1:]})
    said = read_folder(tmp_path, {"more", *map(spoken, names)})
    assert (said.classes, said.test) == (tuple(sorted(names)), None)


def test_a_listed_train_is_the_split_where_it_holds_listed_classes_alone(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path / "train", {"train": 1, "plane": 2})
    assert read_folder(tmp_path, {"train", "plane"}).classes == ("plane", "train")
    make_folder(tmp_path / "test", {"plane": 1})
    splits = read_folder(tmp_path, {"train", "plane"})
    assert (splits.classes, splits.test is None) == (("plane", "train"), False)


def test_splits_below_splits_are_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path / "training_set/training_set", {"cat": 1, "owl": 1})
    make_folder(tmp_path / "test_set/test_set", {"cat": 1, "owl": 1})
    with pytest.raises(DataError, match="training_set is a split and holds 'training_set'"):
        read_folder(tmp_path)


@pytest.mark.parametrize("depth", ["cat", "cat/2024"])
def test_splits_below_a_class_are_refused(
    tmp_path: Path, make_folder: MakeFolder, depth: str
) -> None:
    make_folder(tmp_path / depth, {"Train": 1, "Test": 1})
    make_folder(tmp_path, {"owl": 1})
    with pytest.raises(DataError, match=f"{depth} holds the splits 'Test', 'Train'; .*data.source"):
        read_folder(tmp_path, {"cat", "owl"})


def test_class_folders_that_hold_the_same_folders_are_noted(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    for domain in ("photo", "sketch"):
        make_folder(tmp_path / domain, {"cat": 1, "owl": 1})
    splits = read_folder(tmp_path)
    assert splits.classes == ("photo", "sketch")
    assert "'photo' and 'sketch' both hold 'cat', 'owl'" in splits.notes[0]


def test_a_folder_around_the_classes_is_noted(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path / "dataset", {"cat": 1, "owl": 1})
    (note,) = read_folder(tmp_path).notes
    assert f"set data.source to {tmp_path / 'dataset'}" in note
    assert read_folder(tmp_path, {"dataset", "other"}).notes == ()


def test_images_beside_the_classes_and_a_second_test_split_are_noted(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    for name in ("train", "val", "test"):
        make_folder(tmp_path / name, {"cat": 1, "owl": 1})
    (tmp_path / "train/1.png").write_bytes(b"")
    notes = read_folder(tmp_path).notes
    assert "val is not used: test is the test split" in notes[0]
    assert "1 images lie beside the class folders" in notes[1]


def test_other_and_hidden_files_are_passed_over(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"cat": 1, "owl": 1})
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat/notes.txt").write_text("no image")
    (tmp_path / "cat/.hidden.png").write_bytes(b"")
    (tmp_path / "cat/.cache").mkdir()
    (tmp_path / "cat/.cache/1.png").write_bytes(b"")
    (tmp_path / "cat/@eaDir").mkdir()
    (tmp_path / "cat/@eaDir/thumb.png").write_bytes(b"")
    (tmp_path / "cat/Thumbs.db").write_bytes(b"")
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.notes == ("1 files are passed over because of their suffix: 1 .txt",)


def test_files_of_other_suffixes_are_counted_by_class(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"cat": 1, "owl": 0})
    for number in range(3):
        (tmp_path / f"owl/{number}.RAW").write_bytes(b"")
    (tmp_path / "owl/4").write_bytes(b"")
    splits = read_folder(tmp_path)
    assert splits.notes == ("4 files are passed over because of their suffix: 3 .raw, 1 without",)
    assert splits.passed_over == {"owl": splits.notes[0]}


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


def test_links_inside_a_class_are_followed_once_and_never_back(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path / "store", {"a": 2, "b": 1})
    photos = make_folder(tmp_path / "photos", {"cat": 1, "owl": 1})
    (photos / "cat/more").symlink_to(tmp_path / "store")
    (photos / "cat/again").symlink_to(tmp_path / "store/a")
    (photos / "cat/up").symlink_to(photos)
    (photos / "owl/self").symlink_to(photos / "owl")
    (photos / "owl/gone").symlink_to(tmp_path / "nowhere")
    splits = read_folder(photos)
    assert splits.train.labels.tolist() == [0, 0, 0, 0, 1]
    real = {(photos / splits.train.source.name(i)).resolve() for i in range(5)}
    assert len(real) == 5
    assert "3 linked folders lead to what is read already" in splits.notes[-1]
    assert "1 without" in splits.notes[0]  # the link to nowhere


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


@pytest.mark.parametrize("name", ["__macosx", "$Recycle.Bin", "#recycle", "@EADIR", "Lost+Found"])
def test_folders_of_the_system_in_any_letter_case(
    tmp_path: Path, make_folder: MakeFolder, name: str
) -> None:
    make_folder(tmp_path, {"cat": 1, "owl": 1, name: 1})
    make_folder(tmp_path / "cat", {name: 1})
    splits = read_folder(tmp_path)
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("split", ["test", "Val", "train"])
def test_a_split_below_a_class_is_noted(
    tmp_path: Path, make_folder: MakeFolder, split: str
) -> None:
    make_folder(tmp_path, {"cat": 1, "owl": 1})
    make_folder(tmp_path / "cat", {split: 2})
    splits = read_folder(tmp_path)
    assert splits.train.labels.tolist() == [0, 0, 0, 1]
    (note,) = splits.notes
    assert note.startswith("1 folders below classes are called as splits and are read as parts of")
    assert note.endswith(f"cat/{split}'")
