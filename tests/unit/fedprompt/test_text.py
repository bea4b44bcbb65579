"""Text from outside, made safe to show."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.text import MOST, json_text, one_line, printable

ATTACK = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mroot\x1b[0m \u202e evil\r\nadmin: ok\u2028\x9b1m\u200b"


def test_blanks_that_break_no_line_stay():
    assert printable("65.8\u00a0%\u202f1\u3000") == "65.8\u00a0%\u202f1\u3000"
    assert json_text("65.8\u00a0%") == '"65.8\u00a0%"'


def clean(text):
    return all(char.isprintable() or unicodedata.category(char) == "Zs" for char in text)


def test_nothing_in_it_steers_a_terminal():
    shown = one_line(ATTACK)
    assert shown.isprintable()
    assert shown.startswith(r"\x1b]0;PWNED\x07\x1b[2J\x1b[31mroot\x1b[0m \u202e evil admin: ok")


@given(st.text())
def test_one_line_is_printable_short_and_stays_as_it_is(text):
    line = one_line(text, 40)
    assert line.isprintable()
    assert len(line) <= 40
    assert one_line(line, 40) == line


@given(st.text())
def test_what_is_printable_stays(text):
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize("text", ["x" * 10**6, "\U000e0001" * 10**5, " " * 10**6 + "x"])
def test_a_long_text_is_cut(text):
    assert len(one_line(text)) <= MOST
    assert one_line(text).endswith("...")


@given(st.text())
def test_json_is_printable_and_means_the_same(text):
    assert clean(json_text({text: text}))
    assert json.loads(json_text({"": text}))[""].encode("utf-8", "surrogatepass") == text.encode(
        "utf-8", "surrogatepass"
    )
