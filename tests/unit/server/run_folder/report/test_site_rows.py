"""Sites: who came late, who left, and who has too few images to be shown."""

import pytest

from fedprompt.round_record import SiteScore
from server.run_folder.report.site_rows import is_shown, shown_sites, site_rows
from tests.unit.server.run_folder.report.made_up_run import lines, parse


@pytest.fixture(scope="module")
def rows():
    return {row.site: row for row in site_rows(parse(lines()))}


def test_every_site_has_a_row(rows):
    assert list(rows) == list(range(10))


def test_gain_is_over_round_zero(rows):
    found = lines()
    first, last = found[0]["sites"]["3"]["accuracy"], found[-1]["sites"]["3"]["accuracy"]
    assert rows[3].gain == pytest.approx(last - first)
    assert rows[3].images == 61


def test_a_small_site_tells_neither_count_nor_accuracy(rows):
    assert rows[4].small
    assert rows[4].images is rows[4].accuracy is rows[4].gain is None


def test_a_site_that_was_small_once_stays_hidden():
    found = lines(2)
    found[2]["sites"]["4"]["examples"] = 50
    assert 4 not in shown_sites(parse(found))
    assert site_rows(parse(found))[4].accuracy is None


def test_a_site_that_joined_late_has_no_gain(rows):
    assert rows[7].joined == 3
    assert rows[7].gain is None
    assert rows[7].accuracy is not None
    assert (rows[7].answered, rows[7].asked) == (8, 8)


def test_a_site_that_left_is_told():
    found = lines(3)
    for line in found[2:]:
        for key in ("nodes", "sites"):
            line[key].pop("1")
    row = site_rows(parse(found))[1]
    assert row.left == 1
    assert row.node == 1001
    assert row.accuracy is None
    assert not row.small


def test_strikes_and_lost_replies(rows):
    assert rows[5].strikes == 2
    assert (rows[8].answered, rows[8].asked) == (9, 10)


def test_no_rounds_no_rows():
    assert site_rows([]) == []


@pytest.mark.parametrize(("examples", "shown"), [(0, False), (4, False), (5, True), (500, True)])
def test_five_images_are_enough(examples, shown):
    assert is_shown(SiteScore(accuracy=1.0, examples=examples)) is shown
