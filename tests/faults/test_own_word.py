"""A site's own word is no weight: it owns neither the mean nor the reported accuracy (F06, F10)."""

import json
import logging

import pytest

from server.run_folder.report.doubts import doubts
from server.run_folder.report.run import read_run
from tests.sites import (
    ENROLLED,
    client,
    config,
    counts,
    in_turn,
    run,
    says,
    shows,
    task,
    unmoved,
)

SITES, BAD = 4, 2
HUGE = 10**15
MODEST = 900  # images: what a large site may well have


def claims(images):
    """Return a site that says so at the door, returns the prompt as it came, and scores itself."""
    perfect = says(**{"num-examples": images, "correct": images, "loss": 0.0})
    return {
        "train": {BAD: in_turn(unmoved, counts(images))},
        "evaluate": {BAD: perfect},
        "query": {BAD: shows(**{"num-examples": images})},
    }


def enrolled(folder, images):
    """Write a list of enrolled sites, of which one number of images each was agreed."""
    listed = [
        {"node": 1000 + i, "number": i, "name": f"site-{i}", "images": images.get(i, 0)}
        for i in range(SITES)
    ]
    path = folder / "sites.json"
    path.write_text(json.dumps({"sites": listed}))
    return str(path)


def play(folder, rounds=3, agreed=None, quarantine=3, **spoilt):
    """Run with one hostile site; return the record."""
    sites = "" if agreed is None else enrolled(folder, agreed)
    chosen = config(folder / "run", rounds=rounds, sites=sites, quarantine=quarantine)
    return run(client(**spoilt), SITES, task(), chosen)[1]


def reasons(line, key="verdicts"):
    return {v["site"]: v["reasons"] for v in line[key]}


@pytest.mark.parametrize("agreed", [None, {}], ids=["no list", "none agreed"])
def test_F06_a_site_freezes_nothing_by_its_own_word(tmp_path, agreed):
    lines = play(tmp_path, agreed=agreed, **claims(MODEST))
    assert len({line["prompt"] for line in lines}) == len(lines)  # the prompt moves every round
    for line in lines[1:]:
        assert reasons(line) == {BAD: ["unchanged", "unagreed", "holding"]}
        (verdict,) = line["verdicts"]
        assert "says 900 images, none were agreed; weighs 198" in verdict["detail"]
        assert "with 40% of the round's weight" in verdict["detail"]
        honest = [line["sites"][str(site)]["accuracy"] for site in range(SITES) if site != BAD]
        # forty of its images count beside twenty of each other site's
        assert line["accuracy"] == pytest.approx((sum(honest) * 20 + 1.0 * 40) / 100)
    told = " ".join(doubts(read_run(tmp_path / "run")))
    assert f"over a quarter of a round's weight, which held the prompt back: site {BAD}" in told


def test_F06_who_says_more_than_anybody_can_have_is_struck_and_sits_out(tmp_path):
    lines = play(tmp_path, **claims(HUGE))
    assert reasons(lines[1])[BAD] == ["capped", "unchanged", "holding"]
    assert reasons(lines[1], "evaluation_verdicts") == {BAD: ["capped"]}
    assert lines[-1]["quarantined"] == [BAD]
    assert BAD not in lines[-1]["asked"]
    assert len({line["prompt"] for line in lines}) == len(lines)


def test_F06_more_images_than_agreed_are_a_strike_in_training_and_evaluation(tmp_path, caplog):
    agreed = dict.fromkeys(range(SITES), ENROLLED)
    with caplog.at_level(logging.WARNING, "fedprompt.roster"):
        lines = play(tmp_path, agreed=agreed, quarantine=0, **claims(ENROLLED + 1))
    assert reasons(lines[1]) == {BAD: ["capped", "unchanged", "holding"]}
    assert reasons(lines[1], "evaluation_verdicts") == {BAD: ["capped"]}
    assert lines[-1]["strikes"] == {str(BAD): 7}  # of four evaluations and three rounds
    (remark,) = [entry.getMessage() for entry in caplog.records]
    assert "site-2 says that it has 101 images, at most 100 are counted" in remark


def test_F06_what_was_agreed_is_believed(tmp_path, caplog):
    agreed = dict.fromkeys(range(SITES), ENROLLED) | {BAD: MODEST}
    with caplog.at_level(logging.WARNING, "fedprompt.roster"):
        large = {
            "train": {BAD: counts(MODEST)},
            "query": {BAD: shows(**{"num-examples": MODEST})},
        }
        lines = play(tmp_path, agreed=agreed, **large)
    assert [line["verdicts"] for line in lines[1:]] == [[]] * 3
    assert not caplog.records


def test_F06_a_site_without_an_agreed_number_is_named_when_it_is_admitted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fedprompt.roster"):
        play(tmp_path, rounds=0, agreed={0: ENROLLED, 1: ENROLLED, 3: ENROLLED})
    (remark,) = [entry.getMessage() for entry in caplog.records]
    assert remark.startswith("site-2 has no agreed number of images: its own word, 100, weighs 2")
