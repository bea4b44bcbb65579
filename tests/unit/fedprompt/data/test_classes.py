from pathlib import Path

import pytest

from fedprompt.data.classes import listed, settle, spoken
from fedprompt.errors import DataError


def test_the_data_decides_when_nothing_is_configured() -> None:
    names, place = settle(["big_cat", "owl"], "", numbered=False)
    assert names == ("big cat", "owl")
    assert place.tolist() == [0, 1]


def test_a_site_has_some_classes_of_the_configured_list() -> None:
    names, place = settle(["owl", "big_cat"], "big cat, dog, owl", numbered=False)
    assert names == ("big cat", "dog", "owl")
    assert place.tolist() == [2, 0]


def test_an_unknown_folder_is_named() -> None:
    with pytest.raises(DataError, match=r"'yak', which data\.class_names does not list"):
        settle(["cat", "yak"], "cat,dog", numbered=False)


def test_numbered_classes_are_renamed_in_order() -> None:
    names, place = settle(["0", "1"], "cat,dog", numbered=True)
    assert names == ("cat", "dog")
    assert place.tolist() == [0, 1]
    with pytest.raises(DataError, match="does not list"):
        settle(["0", "1", "2"], "cat,dog", numbered=True)


def test_numbered_classes_are_matched_by_name_where_names_are_known() -> None:
    assert settle(["b", "a"], "a,b", numbered=True)[1].tolist() == [1, 0]


def test_a_text_file_may_have_commas_in_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("rocking chair, rocker\n\nlemon\n")
    assert settle(["lemon"], str(path), numbered=False)[0] == ("rocking chair, rocker", "lemon")


def test_a_json_object_gives_names_to_labels(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('{"n02": "Egyptian cat", "n01": "snake_plant"}')
    names, place = settle(["n01", "n02"], str(path), numbered=False)
    assert names == ("Egyptian cat", "snake_plant")
    assert place.tolist() == [1, 0]


def test_a_json_list(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('["a", "b_c"]')
    assert settle(["b_c"], str(path), numbered=False)[0] == ("a", "b c")


@pytest.mark.parametrize(
    ("found", "configured", "message"),
    [
        (["cat"], "", r"found 1 class \('cat'\); expected at least two"),
        (["cat"], "cat", "expected at least two"),
        ([], "", "found 0 class"),
        (["a_b", "a b"], "", "occur twice: 'a b'"),
        (["a"], "a,b,a", "occur twice: 'a'"),
        (["a", "b\ud800"], "", "unprintable"),
        (["a"], "a,,b", "is empty"),
        (["a"], "names.txt", "could not be read"),
    ],
)
def test_bad_lists_are_refused(found: list[str], configured: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        settle(found, configured, numbered=False)


@pytest.mark.parametrize("text", ["3", "[1, 2]", '{"a": 1}', "{", "null"])
def test_a_broken_json_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(DataError, match=r"data\.class_names"):
        settle(["a"], str(tmp_path / "n.json"), numbered=False)


def test_two_labels_with_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text('{"n1": "crane", "n2": "crane"}')
    with pytest.raises(DataError, match="occur twice: 'crane'"):
        settle(["n1"], str(tmp_path / "n.json"), numbered=False)


def test_spoken() -> None:
    assert spoken(" big__cat\tx ") == "big cat x"


def test_listed_shortens() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([str(i) for i in range(20)]).endswith("'7' and 12 more")
