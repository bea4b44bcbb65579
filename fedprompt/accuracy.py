"""Accuracies with the number of images behind them: intervals, and differences on the same images.

An accuracy on a few hundred images is uncertain by several points. scipy computes the intervals; it
is imported when one is asked for, since it takes a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Accuracy:
    """Count the images that were classified correctly, out of how many.

    Raises
    ------
    ValueError
        There are no images, or more correct ones than images.
    """

    correct: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.count or not self.count:
            raise ValueError(f"{self.correct} of {self.count} images cannot be correct")

    @classmethod
    def of(cls, correct: Sequence[int]) -> "Accuracy":
        """Count what was said image by image: 1 = correct, 0 = wrong."""
        return cls(sum(correct), len(correct))

    @property
    def share(self) -> float:
        """Return the accuracy, from 0 to 1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of Wilson (1927), from 0 to 1."""
        from scipy.stats import binomtest

        found = binomtest(self.correct, self.count).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Difference:
    """Compare two classifiers on the same images, by the images that only one classifies correctly.

    Attributes
    ----------
    gained, lost
        Images that only the first, and only the second, classifies correctly.
    count
        All images.
    """

    gained: int
    lost: int
    count: int

    @classmethod
    def of(cls, first: Sequence[int], second: Sequence[int]) -> "Difference":
        """Compare image by image: 1 where a classifier is right, 0 where it is wrong.

        Raises
        ------
        ValueError
            The two are of unequal length, or empty.
        """
        if not first:
            raise ValueError("no images to compare on")
        pairs = list(zip(first, second, strict=True))
        return cls(pairs.count((1, 0)), pairs.count((0, 1)), len(pairs))

    @property
    def share(self) -> float:
        """Return by how much the first is more accurate, from -1 to 1."""
        return (self.gained - self.lost) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the mean difference an image (paired t), from -1 to 1."""
        from scipy.stats import t

        if self.count == 1:
            return -1.0, 1.0
        variance = ((self.gained + self.lost) / self.count - self.share**2) / (self.count - 1)
        reach = float(t.ppf(0.5 + CONFIDENCE / 2, self.count - 1)) * max(variance, 0.0) ** 0.5
        return max(-1.0, self.share - reach), min(1.0, self.share + reach)

    @property
    def is_distinguishable(self) -> bool:
        """Tell whether McNemar's exact test (1947) rejects, at 5 %, that both are as accurate."""
        from scipy.stats import binomtest

        disagreements = self.gained + self.lost
        if not disagreements:
            return False
        return bool(binomtest(self.gained, disagreements).pvalue < 1 - CONFIDENCE)

    def verdict(self, other: str) -> str:
        """Say in a sentence how the first does against ``other``, the name of the second."""
        if not self.is_distinguishable:
            more = abs(self.gained - self.lost)
            side = "more" if self.gained > self.lost else "fewer"
            images = f"{more:,} of {self.count:,} images {side} correct than"
            counted = images if more else "as many images correct as"
            return f"{counted} {other}: not distinguishable on this test set"
        low, high = self.interval
        return (
            f"{100 * self.share:+.1f} points against {other} on the same images "
            f"({100 * low:+.1f} to {100 * high:+.1f})"
        )
