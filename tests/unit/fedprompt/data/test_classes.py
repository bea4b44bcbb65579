import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import get_clean_fn

from fedprompt.data.classes import (
    as_clip_reads,
    check_told_apart,
    configured_names,
    listed,
    note_names,
    settle,
    spoken,
)
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


@pytest.mark.parametrize("text", ["3", "[1, 2]", '{"a": 1}', "{", "null", '{"a": "x", "a": "y"}'])
def test_a_broken_json_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(DataError, match=r"data\.class_names"):
        settle(["a"], str(tmp_path / "n.json"), numbered=False)


def test_two_labels_with_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text('{"n1": "crane", "n2": "crane"}')
    with pytest.raises(DataError, match="occur twice: 'crane'"):
        settle(["n1"], str(tmp_path / "n.json"), numbered=False)


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("CAT", "cat"),
        ("hot_dog", "Hot  Dog"),
        ("R&D", "r&amp;d"),
        ("it's", "it\u2019s"),
        ("\ufb01sh", "fish"),
        ("\uff43at", "cat"),
        (NFC.upper(), NFD),
        ("a\u00a0b", "A b"),
    ],
)
def test_names_that_clip_reads_alike_are_refused(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"same words to CLIP|occur twice"):
        settle([one, other, "tea"], "", numbered=False)
    with pytest.raises(DataError, match=r"same words to CLIP|occur twice"):
        configured_names(f"{one},{other},tea")
    assert as_clip_reads(one) == as_clip_reads(other)


@settings(max_examples=300)
@given(st.text(max_size=12))
def test_names_are_read_as_open_clip_cleans_them(name: str) -> None:
    cleaned = get_clean_fn("lower")(name.replace("_", " "))
    assert as_clip_reads(name) == as_clip_reads(cleaned)
    if "_" not in cleaned:  # an entity may stand for one
        assert as_clip_reads(name) == cleaned


def test_names_that_look_alike_are_shown_in_ascii() -> None:
    with pytest.raises(DataError, match=r"in ASCII: 'CAF\\xc9', 'caf\\xe9'"):
        check_told_apart([NFC.upper(), NFC])
    with pytest.raises(DataError, match=r"'c\\u0430t'"):
        settle(["c\u0430t"], "cat,dog", numbered=False)
    check_told_apart(["c\u0430t", "cat"])  # other words to CLIP, and to nobody's eye


def test_one_unicode_form_whatever_the_file_system_or_the_list_has(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    for data, listed_names in ((NFD, NFC), (NFC, NFD)):
        assert settle([data, "tea"], f"{listed_names},tea", numbered=False)[0] == (NFC, "tea")
        path.write_text(json.dumps({listed_names: NFD, "tea": "tea"}))
        assert settle([data, "tea"], str(path), numbered=False)[0] == (NFC, "tea")
    with pytest.raises(DataError, match="occur twice"):
        settle([NFC, NFD], "", numbered=False)


def test_names_that_are_no_words_are_noted() -> None:
    assert note_names(["cat", "T-shirt/top", "3d printer", "n95 mask"]) == []
    for odd in ("0", "12", "n01855672", "class_3", "-1", "C0", "1e0", "nan", "True"):
        (note,) = note_names(["cat", odd])
        assert f"no words: {odd!r};" in note


def test_other_labels_are_told_of_the_table() -> None:
    with pytest.raises(DataError, match=r'json table \{"0": "cat", \.\.\.\}'):
        settle(["0", "1"], "cat,dog", numbered=False)


def test_spoken() -> None:
    assert spoken(" big__cat\tx ") == "big cat x"


def test_listed_shortens() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([str(i) for i in range(20)]).endswith("'7' and 12 more")
