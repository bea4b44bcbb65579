"""Intervals and differences, against values computed by hand or from published tables."""

import numpy as np
import pytest

from fedprompt.accuracy import Accuracy, Difference


def test_wilsons_interval_is_the_formulas() -> None:
    correct, count, z = 81, 263, 1.959964
    p = correct / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * (p * (1 - p) / count + z * z / (4 * count**2)) ** 0.5
    expected = (centre - reach, centre + reach)
    assert Accuracy(correct, count).interval == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


@pytest.mark.parametrize("count", [1, 2, 20, 10_000])
def test_the_interval_is_one_of_shares_even_where_all_or_none_are_correct(count: int) -> None:
    low, high = Accuracy(0, count).interval
    assert low == pytest.approx(0.0, abs=1e-12)
    assert 0 < high < 1
    low, high = Accuracy(count, count).interval
    assert high == pytest.approx(1.0)
    assert 0 < low < 1


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match="cannot be correct"):
        Accuracy(correct, count)


def test_a_difference_counts_what_only_one_gets_right() -> None:
    found = Difference.of([1, 1, 0, 0, 1], [1, 0, 1, 0, 0])
    assert (found.gained, found.lost, found.count) == (2, 1, 5)
    assert found.share == pytest.approx(0.2)


def test_the_interval_is_the_paired_t_interval() -> None:
    from scipy.stats import ttest_1samp

    draws = np.random.default_rng(0)
    first, second = ((draws.random(400) < share).astype(int).tolist() for share in (0.7, 0.6))
    expected = ttest_1samp([a - b for a, b in zip(first, second, strict=True)], 0)
    expected = expected.confidence_interval(0.95)
    assert Difference.of(first, second).interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("gained", "lost", "distinguishable"),
    [(0, 0, False), (2, 0, False), (5, 0, False), (6, 0, True), (0, 6, True), (60, 40, False)],
)
def test_only_what_mcnemar_rejects_is_distinguishable(
    gained: int, lost: int, distinguishable: bool
) -> None:  # 6 of 6: p = 0.03; 5 of 5: 0.06; 60 of 100: 0.057
    assert Difference(gained, lost, 1000).is_distinguishable is distinguishable


def test_other_images_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Difference.of([1, 0], [1])
    with pytest.raises(ValueError, match="no images"):
        Difference.of([], [])
    assert Difference.of([1], [0]).interval == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Difference(0, 0, 20), "as many images correct as zero-shot: not distinguishable"),
        (Difference(3, 1, 20), "2 of 20 images more correct than zero-shot: not distinguishable"),
        (Difference(1, 3, 20), "2 of 20 images fewer correct than zero-shot: not distinguishable"),
        (Difference(300, 50, 1000), "+25.0 points against zero-shot on the same images (+21.7 to"),
        (Difference(50, 300, 1000), "-25.0 points against zero-shot on the same images (-28.3 to"),
    ],
)
def test_the_verdict_says_what_can_be_told(difference: Difference, expected: str) -> None:
    assert difference.verdict("zero-shot").startswith(expected)


def test_an_accuracy_reads_with_its_interval() -> None:
    assert str(Accuracy.of([1, 1, 0, 1])) == "75.0% (30.1% to 95.4%)"
