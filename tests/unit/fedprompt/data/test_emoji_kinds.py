import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.data.classes import check_names, spoken
from fedprompt.data.emoji_kinds import KINDS, Emoji, read_catalogue
from fedprompt.errors import DataError


def entry(codes: str, subgroup: str, name: str) -> dict[str, object]:
    return {"unified": codes, "subcategory": subgroup, "short_name": name}


def test_emoji_of_a_kind_in_the_order_of_their_code_points() -> None:
    entries = [
        entry("1F6A2", "transport-water", "ship"),
        entry("1F1E6-1F1FA", "country-flag", "flag-au"),
        entry("2708-FE0F", "transport-air", "airplane"),
        entry("1F34E", "food-fruit", "apple")
        | {"skin_variations": {"1F3FB": entry("1F34E-1F3FB", "food-fruit", "pale")}},
    ]
    assert read_catalogue(json.dumps(entries).encode()) == [
        Emoji(codes="1f34e", name="apple", kind="fruit or vegetable"),
        Emoji(codes="1f6a2", name="ship", kind="ship or aircraft"),
        Emoji(codes="2708-fe0f", name="airplane", kind="ship or aircraft"),
    ]


def test_a_subgroup_belongs_to_one_kind_and_names_can_stand_in_prompts() -> None:
    subgroups = [subgroup for kind in KINDS.values() for subgroup in kind]
    assert len(subgroups) == len(set(subgroups))
    assert not {"country-flag", "flag", "family", "heart", "geometric"} & set(subgroups)
    check_names(tuple(KINDS))
    assert all(spoken(kind) == kind == kind.lower() for kind in KINDS)


@pytest.mark.parametrize("content", [b"", b"{", b"3", b"[3]", b'{"a": 1}', b'[{"unified": "1"}]'])
def test_what_is_no_catalogue_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"emoji\.json is no list of emoji"):
        read_catalogue(content)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_raise_data_errors_only(content: bytes) -> None:
    for text in (content, b"[" + content, b'[{"unified": "1", "subcategory": ' + content):
        try:
            read_catalogue(text)
        except DataError:
            continue
