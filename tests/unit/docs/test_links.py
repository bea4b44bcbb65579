"""Every relative link of the docs leads to a file, and to a heading that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def anchors(page: Path) -> set[str]:
    """Return a page's headings as GitHub names them in links, and its own anchors."""
    text = page.read_text(encoding="utf-8")
    titles, own = re.findall(r"^#+ (.*)$", text, re.M), re.findall(r'<a id="([^"]+)">', text)
    return set(own) | {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_broken(page: Path) -> None:
    broken = []
    for name, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{name}#{anchor}")
    assert not broken


def test_links_are_found() -> None:
    found = LINK.findall("[a](b.md#c-d), [e](https://f.g/h.md), [i](#j)")
    assert found == [("b.md", "c-d"), ("", "j")]
    assert "the-ladder" in anchors(ROOT / "docs" / "ladder.md")
