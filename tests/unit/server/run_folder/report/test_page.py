"""The page: nothing from outside becomes markup, nothing is loaded, no part is needed."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.round_record import RecordedVerdict
from server.run_folder.report.page import render
from server.run_folder.report.predictions import Predictions
from server.run_folder.report.run import Run, read_run
from server.run_folder.run_status import Outcome
from tests.unit.server.run_folder.report.made_up_run import artefact, lines, predictions

NAMES = ("cat", "dog", "owl")
EVIL = "</title><script>alert(1)</script>\"' onload=x {{ 7*7 }} {% raw %} &lt; ]]> <!--"


class Shape(HTMLParser):
    """Collect a page's tags and the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_comment(self, data):
        self.tags.append(("comment", ()))

    def handle_data(self, data):
        self.text.append(data)


def small_run(names, word="x"):
    found = predictions(tuple(names), samples=3)
    for sample in found["samples"]:
        sample["name"] = word
    scored = Predictions.model_validate_json(json.dumps(found | {"source": word}))
    prompt = artefact(classes=list(names), template=word)
    return Run(Path("run"), artefact=prompt, predictions=scored, settings={"data.source": word})


text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
evil = st.sampled_from([EVIL, "<script>", "</td>", "&", "{{ x }}", "${x}", "\x00", "a'b\"c"])


@settings(max_examples=30)
@given(st.lists(text | evil, min_size=3, max_size=3, unique=True), text | evil)
def test_no_name_becomes_markup(names, word):
    plain, strange = Shape(render(small_run(NAMES))), Shape(render(small_run(names, word)))
    assert strange.tags == plain.tags
    assert not [tag for tag, _ in strange.tags if tag == "script"]


def test_names_are_shown_as_they_are():
    page = Shape(render(small_run(("<script>alert(1)</script>", "a & b", "owl"))))
    assert "<script>alert(1)</script>" in page.text
    assert "a & b" in page.text


def test_what_a_site_says_is_escaped(make_run):
    run = read_run(make_run(found=lines(1)))
    verdict = RecordedVerdict(site=1, node=5, accepted=False, reasons=(EVIL,), detail=EVIL)
    spoilt = (run.records[0], run.records[1].model_copy(update={"verdicts": (verdict,)}))
    page = render(replace(run, records=spoilt, ended=Outcome(error=EVIL, message=EVIL)))
    assert "<script" not in page
    assert EVIL in Shape(page).text


def test_a_folders_name_is_escaped_and_quoted(make_run):
    folder = make_run(found=lines(1), predicted=None)
    folder = folder.rename(folder.with_name("<b>my run's"))
    page = render(read_run(folder))
    assert "<b>my" not in page
    assert "fedprompt eval &#39;" in page


def test_the_page_needs_nothing_but_itself(make_run):
    page = render(read_run(make_run()))
    found = Shape(page)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert "@import" not in page
    assert "Content-Security-Policy" in page


def test_ids_are_unique(make_run):
    ids = re.findall(r' id="([^"]+)"', render(read_run(make_run())))
    assert len(ids) == len(set(ids))


def test_a_whole_run_tells_its_story(make_run):
    page = render(read_run(make_run())).replace("\u00a0", " ")
    assert "10 sites tuned one prompt together in 10 rounds." in page
    assert "each site sent 516 numbers a round (2.31 kB with framing)" in page
    assert "joined in round 3" in page
    assert "&lt;5" in page
    assert "Nothing: every reply" not in page
    assert 'class="missing"' not in page
    assert page.count("<svg") == 6


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("found", "fedprompt simulate --output"),
        ("prompt", "fedprompt simulate --resume"),
        ("predicted", "fedprompt eval"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_makes_it(make_run, missing, command):
    page = render(read_run(make_run(**{missing: None})))
    notice = page[page.index('class="missing"') :]
    assert command in notice[: notice.index("</div>")]


def test_a_run_of_one_round_and_one_site(make_run):
    page = render(read_run(make_run(found=lines(1, sites=1), prompt=None)))
    assert "1 site tuned one prompt together in 1 round." in page
    assert "The run has not ended, or was stopped." in page


def test_a_run_that_only_began(make_run):
    page = render(read_run(make_run(found=lines(1)[:1], prompt=None)))
    assert "9 sites joined; no round of training is done." in page


def test_a_failed_run_says_why(make_run):
    run = replace(read_run(make_run(found=lines(1))), ended=Outcome(error="QuorumError"))
    assert "The run ended with QuorumError" in render(run)


def test_a_clean_run_says_so(make_run):
    found = lines(1)
    found[0]["refused"] = []
    assert "Nothing: every reply" in render(read_run(make_run(found=found)))


def test_many_classes_become_a_picture(make_run):
    many = tuple(f"class {i}" for i in range(30))
    page = render(read_run(make_run(found=lines(1), predicted=predictions(many))))
    assert 'class="picture"' in page
    assert 'class="confusion"' not in page


def test_the_same_run_gives_the_same_page(make_run):
    run = read_run(make_run(found=lines(2)))
    assert render(run) == render(run)
