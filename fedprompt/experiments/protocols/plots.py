"""Draw the results: accuracy against numbers sent, and base against new classes."""

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprompt.experiments.protocols.table import Row

Points = list[tuple[str, float, float]]  # a name, across, up
_SIZE, _DPI = (6.4, 4.4), 150  # inches; dots an inch
_SENT, _BASE = "accuracy_against_sent.png", "base_against_new.png"


def plots(found: Sequence[Row], headline: str) -> dict[str, bytes]:
    """Return PNG files by name; a plot without a point is left out.

    Parameters
    ----------
    found
        One row a case.
    headline
        The metric on the first plot's vertical axis.
    """
    drawn = {
        _SENT: _sent(found, headline),
        _BASE: _base(found),
    }
    return {name: png for name, png in drawn.items() if png}


def _sent(found: Sequence[Row], headline: str) -> bytes | None:
    points = _points(found, lambda row: float(row.sent), headline)
    return _drawn(points, "numbers a client sends in a round", f"{headline} (%)", counts=True)


def _base(found: Sequence[Row]) -> bytes | None:
    points = _points(found, lambda row: _percent(row, "base_acc"), "new_acc")
    return _drawn(points, "base_acc (%)", "new_acc (%)")


def _points(found: Sequence[Row], across: Callable[[Row], float | None], up: str) -> Points:
    pairs = [(row.case, across(row), _percent(row, up)) for row in found]
    return [(name, x, y) for name, x, y in pairs if x is not None and y is not None]


def _drawn(points: Points, across: str, up: str, *, counts: bool = False) -> bytes | None:
    """Return a PNG file with a named dot for each point; None without points."""
    if not points:
        return None
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes: Axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
    for name, x, y in points:
        axes.plot([x], [y], "o", color="tab:blue")
        axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.margins(0.15)  # room for the names
    if counts:
        axes.set_xscale("symlog", linthresh=100)  # a zero-shot method sends nothing
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _percent(row: Row, metric: str) -> float | None:
    summary = row.metrics.get(metric)
    return None if summary is None or summary.mean is None else 100 * summary.mean
