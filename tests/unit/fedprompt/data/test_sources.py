from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import pytest

from fedprompt.data import hub, sources
from fedprompt.data.sources import read
from fedprompt.data.splits import Splits
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig

MakeFolder = Callable[[Path, Mapping[str, int]], Path]


def test_a_folder_and_a_manifest(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path / "photos", {"cat": 1, "owl": 1})
    assert read(DataConfig(source=str(tmp_path / "photos"))).classes == ("cat", "owl")
    (tmp_path / "m.csv").write_text("path,label\ncat/0.png,yak\n")
    config = DataConfig(source=str(tmp_path / "m.csv"), root=str(tmp_path / "photos"))
    splits = read(config)
    assert splits.classes == ("yak",)
    assert splits.train.source.content(0)


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {"image": [{"bytes": b"", "path": None}], "label": ["a"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    assert read(DataConfig(source=str(tmp_path / "saved"))).classes == ("a",)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(*arguments: str) -> Splits | None:
        asked.append(arguments[0] if arguments else "fashion")
        return None

    monkeypatch.setattr(sources, "read_fashion_mnist", answer)
    monkeypatch.setattr(sources, "read_emoji", lambda: answer("emoji"))
    monkeypatch.setattr(hub, "read_hub", answer)
    read(DataConfig())
    read(DataConfig(source="hf:a/b"))
    read(DataConfig(source="emoji"))
    assert asked == ["fashion", "hf:a/b", "emoji"]


def test_nowhere_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'nowhere' does not exist; expected fashion-mnist, emoji"):
        read(DataConfig(source="nowhere"))
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(DataError, match="is no manifest; expected fashion-mnist"):
        read(DataConfig(source=str(tmp_path / "data.zip")))


def test_suffixes_of_manifests_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "UP.CSV").write_text("path,label\na.png,yak\nb.png,owl\n")
    assert read(DataConfig(source=str(tmp_path / "UP.CSV"))).classes == ("owl", "yak")


def test_a_folder_with_metadata(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"one": 1, "two": 1})
    (tmp_path / "metadata.csv").write_text("file_name,text\none/0.png,a yak\ntwo/0.png,an owl\n")
    splits = read(DataConfig(source=str(tmp_path)))
    assert splits.classes == ("one", "two")
    assert "set data.label_column if" in splits.notes[0]
    splits = read(DataConfig(source=str(tmp_path), label_column="text"))
    assert splits.classes == ("a yak", "an owl")
    assert splits.train.source.name(1) == "two/0.png"


def test_classes_that_are_called_as_splits_are_listed(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"train": 1, "plane": 1})
    with pytest.raises(DataError, match="beside the splits 'train'"):
        read(DataConfig(source=str(tmp_path)))
    config = DataConfig(source=str(tmp_path), class_names="plane,train")
    assert read(config).classes == ("plane", "train")
