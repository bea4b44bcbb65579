"""A run beside zero-shot CLIP and another run: intervals, differences, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedprompt.errors import DataError
from server.run_folder.report.comparison import compare
from server.run_folder.report.page import render
from server.run_folder.report.predictions import Predictions
from server.run_folder.report.run import Run
from tests.unit.server.run_folder.report.made_up_run import artefact


def scored(correct, zero_shot, test_set="a"):
    return Predictions(
        accuracy=sum(correct) / len(correct),
        correct=tuple(correct),
        zero_shot_correct=tuple(zero_shot),
        test_set=test_set,
    )


def run(method, correct, zero_shot, sent=512, **given):
    prompt = artefact(method=method, sent=sent)
    return Run(
        Path(f"runs/{method}"), artefact=prompt, predictions=scored(correct, zero_shot), **given
    )


GOOD, BAD = [1] * 70 + [0] * 30, [0] * 60 + [1] * 40


def test_a_run_stands_beside_zero_shot_clip():
    found = compare(run("dip", GOOD, BAD), None)
    assert [(row.name, row.accuracy.correct, row.numbers) for row in found.rows] == [
        ("zero-shot CLIP", 40, 0),
        ("dip", 70, 512),
    ]
    assert found.sentence.startswith("dip: +30.0 points against zero-shot CLIP on the same images")


def test_two_runs_are_compared_image_by_image():
    better = [1] * 72 + [0] * 28
    found = compare(run("dip", GOOD, BAD), run("coop", better, BAD, sent=2048))
    assert [row.name for row in found.rows] == ["zero-shot CLIP", "dip", "coop"]
    assert found.sentence.endswith(
        "2 of 100 images fewer correct than coop: not distinguishable on this test set, with 25% "
        "of the numbers sent."
    )


def test_runs_on_other_images_are_refused():
    other = run("coop", GOOD, BAD)
    moved = replace(other, predictions=scored(GOOD, BAD, "b"))
    with pytest.raises(DataError, match="scored on different images; score both"):
        compare(run("dip", GOOD, BAD), moved)


@pytest.mark.parametrize("predictions", [None, Predictions(accuracy=0.5)])
def test_a_run_that_was_not_scored_is_refused_as_the_other(predictions):
    other = replace(run("coop", GOOD, BAD), predictions=predictions)
    with pytest.raises(DataError, match="fedprompt eval runs/coop"):
        compare(run("dip", GOOD, BAD), other)
    assert compare(other, None) is None  # as the first it has a page without a comparison


def test_the_page_shows_the_comparison():
    page = render(run("dip", GOOD, BAD), run("coop", GOOD, BAD, sent=2048))
    for part in ("What was won", "zero-shot CLIP", "60.4\u00a0% to 78.1\u00a0%", "2,048"):
        assert part in page
    assert "What was won" not in render(Run(Path("run"), artefact=artefact()))


def test_uneven_lists_are_refused():
    with pytest.raises(ValueError, match="2 images are told of, and 1 for zero-shot"):
        scored([1, 0], [1])
