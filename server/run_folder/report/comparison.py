"""Set a run beside another on the same test images: accuracies, their difference, what was sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprompt.accuracy import Accuracy, Difference
from fedprompt.errors import DataError
from server.run_folder.report.headline import headline
from server.run_folder.report.predictions import Predictions
from server.run_folder.report.run import Run


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one classifier of the comparison."""

    name: str
    accuracy: Accuracy
    numbers: int | None  # that a site sends each round; None: the artefact does not tell

    @property
    def interval(self) -> tuple[float, float]:
        """Return the accuracy's 95 % interval."""
        return self.accuracy.interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold zero-shot CLIP, the run and, if one is given, another run beside it."""

    rows: tuple[Row, ...]
    sentence: str  # what was won, and at what price


def compare(run: Run, other: Run | None) -> Comparison | None:
    """Return a run's accuracy beside zero-shot CLIP's and another run's; None without predictions.

    Raises
    ------
    DataError
        The other run was not scored, or on other images.
    """
    scored = run.predictions
    if scored is None or not scored.correct:
        return None
    rows = [
        Row(name="zero-shot CLIP", accuracy=Accuracy.of(scored.zero_shot_correct), numbers=0),
        _row(run, scored.correct),
    ]
    told = [_won(run, scored)]
    if other is not None:
        beside = _same_images(run, scored, other)
        rows.append(_row(other, beside.correct))
        told.append(_against(rows[1], rows[2], Difference.of(scored.correct, beside.correct)))
    return Comparison(rows=tuple(rows), sentence=" ".join(told))


def _row(run: Run, correct: Sequence[int]) -> Row:
    numbers = headline(run.records, run.artefact).numbers
    return Row(name=_name(run), accuracy=Accuracy.of(correct), numbers=numbers)


def _name(run: Run) -> str:
    return str(run.artefact.metadata["method"]) if run.artefact else run.path.resolve().name


def _same_images(run: Run, scored: Predictions, other: Run) -> Predictions:
    beside = other.predictions
    if beside is None or not beside.correct:
        raise DataError(
            f"{other.path} holds no predictions to compare with; make them with fedprompt eval "
            f"{other.path}"
        )
    if beside.test_set != scored.test_set:
        raise DataError(
            f"{run.path} and {other.path} were scored on different images; score both with "
            "fedprompt eval and the same [data] settings"
        )
    return beside


def _won(run: Run, scored: Predictions) -> str:
    gain = Difference.of(scored.correct, scored.zero_shot_correct)
    return f"{_name(run)}: {gain.verdict('zero-shot CLIP')}."


def _against(row: Row, beside: Row, difference: Difference) -> str:
    told = difference.verdict(beside.name)
    if row.numbers and beside.numbers and row.numbers < beside.numbers:
        told += f", with {row.numbers / beside.numbers:.0%} of the numbers sent"
    return f"{told[0].upper()}{told[1:]}."
