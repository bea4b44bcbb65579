import tomllib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt import toml

SCALARS = st.one_of(
    st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)


@given(SCALARS)
def test_what_is_written_is_read_again(value: str | int | float | bool) -> None:
    if value in (float("inf"), float("-inf")):
        return
    found = tomllib.loads(f"key = {toml.dumps(value)}")["key"]
    assert (found, type(found)) == (value, type(value))


def test_it_reads_what_the_standard_library_reads() -> None:
    text = '[node]\nname = "a.b.c" # [[[ {\nhosts = ["a:1", "b:2"]\ninline = {x = 1, y.z = 2}\n'
    assert toml.loads(text) == tomllib.loads(text)


def test_a_byte_order_mark_is_no_statement() -> None:
    assert toml.loads('\ufeff[prompt]\nmethod = "dip"\n') == {"prompt": {"method": "dip"}}
    with pytest.raises(ValueError, match="line 1"):
        toml.loads('[prompt]\ufeff\nmethod = "dip"\n')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 33 + "]" * 33, "more than 32 brackets"),
        ("a = " + "{a = " * 33, "more than 32 brackets"),
        ("a = " + "[{a = " * 4000, "more than 32 brackets"),
        (".".join("a" * 33) + " = 1", "more than 32 parts"),
        (" . ".join(['"a"'] * 4000) + " = 1", "more than 32 parts"),
        ("[" + ".".join("a" * 4000) + "]", "more than 32 parts"),
        ("a = {" + ".".join("a" * 4000) + " = 1}", "more than 32 parts"),
        ("a = ", "Invalid value"),
    ],
)
def test_what_would_exhaust_the_parser_is_refused_before_it_starts(text: str, says: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=says):
        toml.loads(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 100_000  # the least cap of a file of settings


@pytest.mark.parametrize("text", ["a = " + "[" * 32 + "]" * 32, ".".join("a" * 32) + " = 1"])
def test_the_bounds_themselves_are_fine(text: str) -> None:
    assert toml.loads(text) == tomllib.loads(text)
