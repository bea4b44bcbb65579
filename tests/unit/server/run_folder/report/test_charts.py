"""Charts are drawn whatever a run lacks, and say in words what they show."""

import re
from xml.etree import ElementTree

import pytest

from fedprompt.round_record import RoundRecord
from server.run_folder.report import charts
from tests.unit.server.run_folder.report.made_up_run import lines, parse

SVG = "{http://www.w3.org/2000/svg}"
DRAW = (charts.accuracy_chart, *charts.CHARTS)


@pytest.mark.parametrize("draw", DRAW)
def test_each_has_a_title_and_a_description(draw):
    chart = draw(parse(lines(rounds=3)))
    root = ElementTree.fromstring(chart.svg)  # noqa: S314 (our own)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {description.attrib['id']}"
    assert chart.title in title.text
    assert "round 3" in description.text


def test_the_description_tells_the_figures():
    told = str(charts.accuracy_chart(parse(lines())).svg).replace("\u00a0", " ")
    assert "mean: from 65.8 % in round 0 to 82.3 % in round 10" in told


def test_ids_are_unique_in_one_page():
    page = "".join(str(draw(parse(lines(3))).svg) for draw in DRAW)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(ids)


def test_no_colour_is_fixed_so_that_the_page_sets_them_by_day_and_night():
    page = "".join(str(draw(parse(lines(3))).svg) for draw in DRAW)
    assert set(re.findall(r"#[0-9a-f]{6}\b", page)) == set()
    assert "font-family" not in page


def test_a_run_of_one_round_and_one_that_only_began():
    for count in (1, 2):
        found = parse(lines(1)[:count])
        drawn = [draw(found) for draw in DRAW]
        assert [chart is not None for chart in drawn] == [
            True, True, True, count == 2, count == 2, count == 2,
        ]  # fmt: skip


def test_rounds_that_were_not_evaluated_are_bridged():
    found = lines(4)
    for line in found[1:4]:
        for key in ("accuracy", "worst_client_acc", "nll", "sites"):
            line.pop(key)
    told = str(charts.accuracy_chart(parse(found)).svg)
    assert "in round 0" in told
    assert "in round 4" in told


def test_nothing_evaluated_no_chart():
    assert charts.accuracy_chart([RoundRecord(round=0), RoundRecord(round=1)]) is None
    assert charts.accuracy_chart([]) is None


def test_many_sites_are_a_band_and_long_runs_are_lines():
    found = parse(lines(rounds=70, sites=60))
    assert "8 of 10 sites" in charts.accuracy_chart(found).svg
    assert len(charts.bytes_chart(found).svg) < 20_000


def test_only_small_sites_still_give_a_mean():
    found = lines(1)
    for line in found:
        for score in line["sites"].values():
            score["examples"] = 2
    told = str(charts.accuracy_chart(parse(found)).svg)
    assert "mean" in told
    assert "worst" not in told


def test_the_same_run_gives_the_same_bytes():
    found = parse(lines(2))
    assert charts.loss_chart(found).svg == charts.loss_chart(found).svg
