import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from fedprompt.data import hub
from fedprompt.data.hub import is_saved_dataset, read_hub, read_saved
from fedprompt.errors import DataError

Encode = Callable[..., bytes]


@pytest.fixture(autouse=True)
def no_progress_bars() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def table(encode: Encode) -> Callable[..., Any]:
    def make(labels: list[Any], label: Any = None, **columns: Any) -> Any:
        features = {
            "image": datasets.Image(),
            "label": label or datasets.ClassLabel(names=["b", "a"]),
        }
        images = [{"bytes": encode(i + 1), "path": None} for i in range(len(labels))]
        rows = {"image": images, "label": labels}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    return make


def test_a_saved_dataset_with_splits(tmp_path: Path, table: Any, encode: Encode) -> None:
    splits = {"train": table([0, 1, 1]), "test": table([1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert is_saved_dataset(tmp_path / "saved")
    assert not is_saved_dataset(tmp_path)
    read = read_saved(tmp_path / "saved")
    assert read.classes == ("b", "a")  # the dataset's own order
    assert read.numbered
    assert read.train.labels.tolist() == [0, 1, 1]
    assert read.train.source.content(2) == encode(3)  # as saved, not decoded and encoded again
    assert read.train.source.name(2).endswith("saved/train[2]")
    assert read.test is not None
    assert read.test.labels.tolist() == [1]


def test_a_single_table_is_the_training_split(tmp_path: Path, table: Any) -> None:
    table([0, 1]).save_to_disk(tmp_path / "saved")
    assert is_saved_dataset(tmp_path / "saved")
    assert read_saved(tmp_path / "saved").test is None


@pytest.mark.parametrize(("kind", "labels"), [("string", ["owl", "cat"]), ("int64", [7, 3])])
def test_labels_without_a_class_list(tmp_path: Path, table: Any, kind: str, labels: Any) -> None:
    table(labels, datasets.Value(kind)).save_to_disk(tmp_path / "saved")
    read = read_saved(tmp_path / "saved", label_column="label")
    assert read.classes == tuple(sorted(map(str, labels)))
    assert not read.numbered
    assert read.train.labels.tolist() == [1, 0]


def test_other_column_names_are_found_by_their_type(tmp_path: Path, table: Any) -> None:
    renamed = table([0, 1]).rename_columns({"image": "photo", "label": "kind"})
    renamed.save_to_disk(tmp_path / "saved")
    assert read_saved(tmp_path / "saved").train.labels.tolist() == [0, 1]


def test_unclear_and_missing_columns_are_named(tmp_path: Path, table: Any) -> None:
    table(["x", "y"], datasets.Value("string")).rename_column("label", "kind").save_to_disk(
        tmp_path / "saved"
    )
    with pytest.raises(DataError, match=r"columns image, kind, none .* set data\.image_column"):
        read_saved(tmp_path / "saved")
    with pytest.raises(DataError, match="no column 'lable'; has image, kind"):
        read_saved(tmp_path / "saved", label_column="lable")
    with pytest.raises(DataError, match="are no images and classes"):
        read_saved(tmp_path / "saved", image_column="kind", label_column="kind")


def test_hidden_labels_are_refused(tmp_path: Path, table: Any) -> None:
    splits = {"train": table([0, 1]), "test": table([-1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="hides its labels"):
        read_saved(tmp_path / "saved")


def test_no_training_split(tmp_path: Path, table: Any) -> None:
    datasets.DatasetDict({"test": table([1])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="has the splits test; expected train"):
        read_saved(tmp_path / "saved")


def test_a_broken_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="no readable Hugging Face dataset"):
        read_saved(tmp_path)


def test_an_image_kept_as_a_path(tmp_path: Path) -> None:
    rows = hub._Rows([{"image": {"bytes": None, "path": str(tmp_path / "a.png")}}], "image", "set")
    with pytest.raises(DataError, match=r"a\.png is no file"):
        rows.content(0)
    (tmp_path / "a.png").write_bytes(b"a")
    assert rows.content(0) == b"a"


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "", None, "a\0b"])
def test_f33_an_image_that_is_no_file_neither_blocks_nor_fills_memory(
    tmp_path: Path, path: str | None
) -> None:
    os.mkfifo(tmp_path / "pipe")
    place = str(tmp_path / path) if path else path
    rows = hub._Rows([{"image": {"bytes": None, "path": place}}], "image", "set")
    with pytest.raises(DataError):
        rows.content(0)


@pytest.mark.parametrize(
    ("feature", "label"),
    [
        (datasets.Value("string"), None),
        (datasets.Value("string"), " "),
        (datasets.Value("bool"), True),
        (datasets.Value("float64"), 0.5),
        (datasets.List(datasets.Value("int64")), [1, 2]),
    ],
)
def test_labels_that_are_no_names_and_no_numbers_are_refused(
    tmp_path: Path, table: Any, feature: Any, label: Any
) -> None:
    table([label, label], feature).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved\[0\] has no label"):
        read_saved(tmp_path / "saved", label_column="label")


def test_whole_numbers_with_a_point_are_read_as_such(tmp_path: Path, table: Any) -> None:
    table([1.0, 0.0], datasets.Value("float64")).save_to_disk(tmp_path / "saved")
    assert read_saved(tmp_path / "saved", label_column="label").classes == ("0", "1")


def test_no_internet_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(DataError, match=r"hf:a/b: huggingface.co cannot be reached .*save_to_disk"):
        read_hub("hf:a/b")


def test_the_hub_by_name_and_configuration(monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    asked: list[tuple[str, str | None]] = []

    def load(name: str, configuration: str | None) -> Any:
        asked.append((name, configuration))
        return datasets.DatasetDict({"train": table([0, 1])})

    monkeypatch.setattr(hub, "_check_reachable", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_hub("hf:owner/name").classes == ("b", "a")
    assert read_hub("hf:owner/name:small").train.source.name(0) == "hf:owner/name:small/train[0]"
    assert asked == [("owner/name", None), ("owner/name", "small")]


def test_a_hub_error_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Any:
        raise datasets.exceptions.DatasetNotFoundError("doesn't exist")

    monkeypatch.setattr(hub, "_check_reachable", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"hf:no/thing could not be fetched .*doesn't exist"):
        read_hub("hf:no/thing")


def test_a_row_without_an_image_is_unreadable() -> None:
    with pytest.raises(DataError, match=r"set\[0\] holds no image"):
        hub._Rows([{"image": None}], "image", "set").content(0)


def test_splits_in_any_case_and_those_that_are_not_used(tmp_path: Path, table: Any) -> None:
    splits = {
        "Training": table([0, 1]),
        "validation": table([1]),
        "test": table([0]),
        "extra": table([1]),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    read = read_saved(tmp_path / "saved")
    assert read.train.labels.tolist() == [0, 1]
    assert read.test is not None
    assert read.test.labels.tolist() == [0]
    assert read.notes == ("splits that are not used: validation, extra",)
