import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprompt.data.manifest import read_manifest, read_metadata
from fedprompt.data.splits import Splits
from fedprompt.errors import DataError

Encode = Callable[..., bytes]


def read(folder: Path, name: str, text: str | bytes, root: Path | None = None) -> Splits:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_manifest(folder / name, root)


def names(splits: Splits) -> list[str]:
    return [splits.train.source.name(i) for i in range(len(splits.train.labels))]


def test_csv(tmp_path: Path) -> None:
    splits = read(tmp_path, "m.csv", 'path,label\nb.png,owl\n"a, b.png", cat \n')
    assert splits.classes == ("cat", "owl")
    assert splits.train.labels.tolist() == [1, 0]
    assert names(splits) == ["b.png", "a, b.png"]
    assert (splits.test, splits.numbered) == (None, False)


def test_csv_with_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    splits = read(
        tmp_path, "m.csv", b"\xef\xbb\xbfpath,label,site\r\na.png,\xc3\xa9t\xc3\xa9,3\r\n"
    )
    assert splits.classes == ("été",)


def test_line_breaks_inside_names(tmp_path: Path) -> None:
    assert names(read(tmp_path, "m.csv", 'path,label\n"a\nb",cat\n')) == ["a\nb"]
    assert names(read(tmp_path, "m.jsonl", '{"path": "a\u2028b", "label": "c"}')) == ["a\u2028b"]


def test_jsonl_with_splits_and_number_labels(tmp_path: Path) -> None:
    lines = [
        {"path": "a.png", "label": 10},
        {"path": "b.png", "label": "9", "split": "Train"},
        {"path": "c.png", "label": 10, "split": "test"},
        {"path": "d.png", "label": 10, "split": "val"},
    ]
    splits = read(tmp_path, "m.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert splits.classes == ("10", "9")
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.test is not None
    assert [splits.test.source.name(i) for i in range(len(splits.test.labels))] == ["c.png"]


def test_labels_that_pandas_made_numbers_with_a_point(tmp_path: Path) -> None:
    lines = [{"path": f"{i}.png", "label": float(i % 2)} for i in range(4)]
    splits = read(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines)))
    assert splits.classes == ("0", "1")
    splits = read(tmp_path, "m.csv", "path,label\na,0.0\nb,12.0\n")
    assert splits.classes == ("0", "12")
    assert "are read as whole numbers" in splits.notes[0]
    versions = read(tmp_path, "m.csv", "path,label\na,1.0\nb,1.5\n")
    assert (versions.classes, versions.notes) == (("1.0", "1.5"), ())


def test_labels_and_domains_of_one_unicode_form(tmp_path: Path) -> None:
    lines = ["path,label,domain", "a,caf\u00e9,\u00e9", "b,cafe\u0301,e\u0301"]
    splits = read(tmp_path, "m.csv", "\n".join(lines))
    assert (splits.classes, splits.domain_names) == (("caf\u00e9",), ("\u00e9",))
    tree = {"train": [["a", 0, "caf\u00e9"], ["b", 0, "cafe\u0301"]]}
    assert read(tmp_path, "m.json", json.dumps(tree)).classes == ("caf\u00e9",)


def test_columns_in_any_case_and_those_that_are_not_used(tmp_path: Path) -> None:
    text = "File_Name, LABEL ,Split,Age\na.png,cat,TRAIN,3\nb.png,owl,Testing,4\n"
    splits = read(tmp_path, "M.CSV", text)
    assert splits.classes == ("cat", "owl")
    assert splits.test is not None
    assert splits.notes == ("columns that are not used: 'age'",)
    (tmp_path / "m.csv").write_text("path,label,finding\na,1,yes\n")
    assert read_manifest(tmp_path / "m.csv", None, "Finding").classes == ("yes",)


def test_lines_without_a_split_and_a_val_that_is_not_used_are_noted(tmp_path: Path) -> None:
    text = "path,label,split\na,x,\nb,y,train\nc,x,val\nd,x,test\n"
    notes = read(tmp_path, "m.csv", text).notes
    assert notes[0] == "1 lines name no split and are for training: 'line 2'"
    assert notes[1] == "1 images of val are not used: there is a test split"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("cat\\1.png", "backslashes"),
        ("cat/1.png ", "blanks around it"),
        ("C:/cat/1.png", "absolute path of Windows"),
        ("https://cat/1.png", "address: download"),
    ],
)
def test_a_path_of_windows_or_with_blanks_is_explained(
    tmp_path: Path, path: str, says: str
) -> None:
    with pytest.raises(DataError, match=rf"line 2: .*is no file .*{says}"):
        read(tmp_path, "m.csv", f"path,label\n{path},cat\n")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"")  # a name is a name where such a file exists
    assert names(read(tmp_path, "m.csv", f"path,label\n{path},cat\n")) == [str(Path(path))]


def test_a_path_of_windows_that_is_too_long_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="backslashes"):
        read(tmp_path, "m.csv", "path,label\n" + "cat\\" * 200 + "1.png,cat\n")


def metadata(folder: Path, *lines: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_metadata_of_a_hugging_face_folder(tmp_path: Path) -> None:
    metadata(
        tmp_path,
        {"file_name": "train/a.png", "label": "cat"},
        {"file_name": "train/b.png", "label": "owl"},
        {"file_name": "test/c.png", "label": "owl"},
    )
    splits = read_metadata(tmp_path)
    assert isinstance(splits, Splits)
    assert (splits.classes, names(splits)) == (("cat", "owl"), ["train/a.png", "train/b.png"])
    assert splits.test is not None
    assert splits.test.source.name(0) == "test/c.png"
    assert "not from names of folders" in splits.notes[0]
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"")
    splits = read_metadata(tmp_path)
    assert isinstance(splits, Splits)
    assert "1 images below" in splits.notes[1]


def test_metadata_in_each_split(tmp_path: Path) -> None:
    metadata(tmp_path / "Train", {"file_name": "a.png", "Finding": 1})
    (tmp_path / "Test").mkdir()
    (tmp_path / "Test/metadata.csv").write_text("file_name,finding\nsub/b.png,0\n")
    splits = read_metadata(tmp_path, "finding")
    assert isinstance(splits, Splits)
    assert (splits.classes, names(splits)) == (("0", "1"), ["Train/a.png"])
    assert splits.test is not None
    assert splits.test.source.name(0) == "Test/sub/b.png"


def test_metadata_without_labels_leave_the_folders(tmp_path: Path) -> None:
    assert read_metadata(tmp_path) == ""
    metadata(tmp_path, {"file_name": "cat/a.png", "text": "a cat"})
    found = read_metadata(tmp_path)
    assert isinstance(found, str)
    assert "'file_name', 'text', none of them with labels" in found


def test_metadata_in_any_letter_case_and_of_a_kind_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "Metadata.CSV").write_text("file_name,label\na.png,cat\n")
    read = read_metadata(tmp_path)
    assert isinstance(read, Splits)
    assert read.classes == ("cat",)
    (tmp_path / "Metadata.CSV").rename(tmp_path / "metadata.parquet")
    assert "metadata.parquet' is not read here: classes are folders" in str(read_metadata(tmp_path))


@pytest.mark.parametrize("second", ["metadata.jsonl", "train/metadata.jsonl"])
def test_an_image_that_two_metadata_files_list_is_refused(tmp_path: Path, second: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.png,cat\n")
    name = "a.png" if "/" in second else "train/a.png"
    (tmp_path / second).write_text(json.dumps({"file_name": name, "label": "dog"}))
    with pytest.raises(DataError, match=r"lists 'train/a.png', which other metadata"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("above", ["", "photos/", "test/photos/"])
@pytest.mark.parametrize("below", ["", "cat/"])
def test_split_folders_at_any_depth_need_a_column_that_says_so(
    tmp_path: Path, above: str, below: str
) -> None:
    paths = [f"{above}{split}/{below}{i}.png" for i, split in enumerate(("train", "Test"))]
    rows = "".join(f"{path},cat\n" for path in paths)
    with pytest.raises(DataError, match="no split is stated, but paths lead through splits"):
        read(tmp_path, "m.csv", "path,label\n" + rows)
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + rows)
    if above == "photos/":
        with pytest.raises(DataError, match="no split is stated"):
            read_metadata(tmp_path)


def test_a_folder_called_as_a_split_above_all_images_means_nothing(tmp_path: Path) -> None:
    assert names(read(tmp_path, "m.csv", "path,label\ntest/train/a.png,cat\n"))


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    splits = read(tmp_path, "m.csv", "path,label,split\na,x,train\nb,y,validation\n")
    assert splits.test is not None
    assert splits.test.labels.tolist() == [1]


def test_coops_split_file(tmp_path: Path) -> None:
    tree = {
        "train": [["b/1.jpg", 1, "owl"], ["a/1.jpg", 0, "zebra"]],
        "val": [],
        "test": [["a/2.jpg", 0, "zebra"]],
    }
    splits = read(tmp_path, "split_zhou_Animals.json", json.dumps(tree))
    assert splits.classes == ("zebra", "owl")  # by number, not by name
    assert splits.numbered
    assert splits.train.labels.tolist() == [1, 0]
    assert splits.test is not None


def test_a_domain_column(tmp_path: Path) -> None:
    lines = ["path,label,split,domain", "a,x,train,ulm", "b,y,train, bern", "c,x,test,graz"]
    splits = read(tmp_path, "m.csv", "\n".join(lines))
    assert splits.domain_names == ("bern", "graz", "ulm")
    assert splits.train.domains.tolist() == [2, 0]
    assert splits.test is not None
    assert splits.test.domains.tolist() == [1]
    rows = [{"path": "a", "label": "x", "domain": d} for d in (0, 1, "0")]
    splits = read(tmp_path, "m.jsonl", "\n".join(map(json.dumps, rows)))
    assert (splits.domain_names, splits.train.domains.tolist()) == (("0", "1"), [0, 1, 0])


def test_a_manifest_without_domains_has_none(tmp_path: Path) -> None:
    for text in ("path,label\na,x\n", "path,label,domain\na,x,\nb,y,\n"):
        splits = read(tmp_path, "m.csv", text)
        assert (splits.domain_names, splits.train.domains.shape) == ((), (0,))


def test_paths_are_relative_to_the_manifest_or_to_the_root(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encode(1))
    (tmp_path / "lists").mkdir()
    text = "path,label\na.png,cat\n"
    splits = read(tmp_path / "lists", "m.csv", text, tmp_path / "images")
    assert splits.train.source.content(0) == encode(1)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd"])
def test_F33_a_path_that_leaves_the_folder_is_refused_with_its_line(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(DataError, match=r"m\.csv: line 3: .*leads out of"):
        read(tmp_path, "m.csv", f"path,label\na.png,cat\n{path},cat\n")


def test_a_root_given_by_the_user_allows_absolute_paths(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "a.png").write_bytes(encode(1))
    splits = read(tmp_path, "m.csv", f"path,label\n{tmp_path / 'a.png'},cat\n", Path("/"))
    assert splits.train.source.content(0) == encode(1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,class\na,b\n", "expected path,label"),
        ("m.csv", "", "expected path,label"),
        ("m.csv", "path,label\n,cat\n", "line 2 has no path"),
        ("m.csv", "path,label\na.png\n", "line 2 has no label"),
        ("m.csv", "path,label\na.png, \n", "line 2 has no label"),
        ("m.csv", 'path,label\n"a.png,cat\n', r"line \d is broken"),
        ("m.csv", "path,label,split\na,b,dev\n", "split 'dev'; expected train, val or test"),
        (
            "m.csv",
            "path,label,domain\na,b,ulm\nc,b\n",
            "line 3 has no domain, but line 2 has 'ulm'",
        ),
        ("m.jsonl", '{"path": "a", "label": 1, "domain": [1]}', "line 1: the domain is a list"),
        ("m.jsonl", '{"path": "a", "label": 1, "domain": "a\\u0007"}', "unprintable"),
        ("m.jsonl", '{"path": "a"', "line 1 is not JSON"),
        ("m.jsonl", "[1]", "line 1 is no object"),
        ("m.jsonl", '{"path": 3, "label": "a"}', "line 1 has no path"),
        ("m.jsonl", '{"path": "a", "label": true}', "line 1 has no label"),
        ("m.jsonl", '{"path": "a\\u0000b", "label": "a"}', "line 1: .* is no path"),
        ("m.json", "[]", "expected {"),
        ("m.json", '{"train": [["a", "0", "cat"]]}', r"train\[0\] is not"),
        ("m.json", '{"train": [], "test": 3}', r"test\[0\] is not"),
        ("m.json", '{"train": [["a", 0, "x"], ["b", 0, "y"]]}', "class 0 is both 'x' and 'y'"),
        ("m.csv", b"path,label\n\xff,b\n", "is not UTF-8"),
        ("m.csv", "path,label\na, b.png,cat\n", "line 2 has 3 fields and the header 2; .* quotes"),
        ("m.csv", "path,label,Label\na,b,c\n", "two columns for 'label'"),
        ("m.csv", "path,file_name,label\na,b,c\n", "two columns for 'path'"),
        ("m.csv", "path,label\ntrain/a,x\ntest/b,y\n", "no split is stated, but paths"),
        ("m.jsonl", '{"path": "a", "label": 0.5}', "line 1 has no label of a kind .* found 0.5"),
        ("m.jsonl", '{"path": "a", "label": NaN}', "line 1 has no label of a kind .* found nan"),
        ("m.jsonl", '{"path": "a", "label": null}', "line 1 has no label$"),
        ("m.csv", "path,label\na,x\n./b/../a,y\n", "'a' is 'x' in line 2 and 'y' in line 3"),
        (
            "m.csv",
            "path,label,split\na,x,test\na,y,train\n",
            "'a' is 'y' in line 3 and 'x' in line 2",
        ),
        ("m.json", '{"train": [["a", 0, "x"]], "test": [["a", 1, "y"]]}', "an image has one label"),
        ("m.jsonl", '{"path": "a", "label": "x", "label": "y"}', "two values for 'label'"),
        ("m.jsonl", '{"path": "a", "label": "x", "split": false}', "line 1: split 'false'"),
        ("m.json", '{"train": [], "train": []}', "two values for 'train'"),
        ("m.json", '{"train": [["a", true, "x"]]}', r"train\[0\] has True"),
        ("m.json", '{"train": [["a", 0, " "]]}', r"train\[0\] is not"),
    ],
)
def test_broken_manifests_are_named(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, text)


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_manifest(tmp_path / "m.csv")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["m.csv", "m.jsonl", "m.json"]), st.one_of(st.binary(), st.text()))
def test_any_bytes_raise_data_errors_only(tmp_path: Path, name: str, text: str | bytes) -> None:
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    for start in (b"", b"path,label\n", b'{"train": ', b'{"path": "a", "label": "b"}\n'):
        try:
            read(tmp_path, name, start + content)
        except DataError:
            continue
