import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from export.targets.card.markdown import NOT_RECORDED, number, table, text

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "[free](javascript:alert(1))",
    "![pixel](http://evil.example/p.png)",
    "http://evil.example www.evil.example a@evil.example",
    "cat | dog |",
    "a\\| b\\",
    "one\ntwo\r\n\n# three\n---\nlicense: mit",
    "`code` *bold* _it_ ~~no~~ $x$ [^1] :smile: #1",
    "> quote",
    "- item",
    "1. item",
    "```sh",
    "|---|---|",
    "\u202egnp.exe",
    "\ud800",
    "\x1b[31mred",
    "",
    " \t ",
]


class Cells(HTMLParser):
    """Collect the cells of the only table there is, and every other element."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.others: list[str] = []
        renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.feed(renderer.render(markdown))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("th", "td"):
            self.cells.append("")
        elif tag not in ("table", "thead", "tbody", "tr"):
            self.others.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.cells[-1] += data


def shown(value: str) -> str:
    """Return what a reader is to see."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split()) or "(blank)"


def check(value: str) -> None:
    found = Cells(table(("a", "b", "c"), [("1", text(value), "2")]))
    assert found.others == []
    assert found.cells == ["a", "b", "c", "1", shown(value), "2"]


@pytest.mark.parametrize("value", HOSTILE)
def test_text_of_strangers_stays_text(value: str) -> None:
    check(value)


@given(st.text(max_size=60))
def test_any_text_stays_text(value: str) -> None:
    check(value)


@given(st.text("<>&|\\`*_[]()!#~$:@=\"'-+.ab \n", max_size=40))
def test_any_marks_stay_text(value: str) -> None:
    check(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_becomes_a_link_by_itself(value: str) -> None:
    """GitHub turns bare addresses into links, which the renderer of these tests does not."""
    assert not re.search(r"(?<!\\):|www\.|(?<!\\)@", text(value))


def test_long_text_is_cut_and_values_are_text() -> None:
    assert text("x" * 10**6) == "x" * 200 + "…"
    assert text("x" * 200) == "x" * 200
    assert text(3) == "3"
    assert text(["<a>"]) == r"\['&lt;a&gt;'\]"


def test_numbers_are_written_by_their_format() -> None:
    assert number(0.5, "{:.2%}") == "50.00%"
    assert number(1234, "{:,.0f}") == "1,234"


@pytest.mark.parametrize(
    "value", [None, True, "3", float("nan"), float("inf"), 10**400, [], {"a": 1}]
)
def test_what_is_no_figure_is_not_recorded(value: object) -> None:
    assert number(value, "{:.2f}") == NOT_RECORDED
