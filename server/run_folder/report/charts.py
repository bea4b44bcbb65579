"""Draw a run's curves; each says in words what it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedprompt.round_record import RoundRecord
from server.run_folder.report.formats import count, percent, size
from server.run_folder.report.site_rows import is_shown, shown_sites
from server.run_folder.report.svg import FAINT, INK, MEAN, WORST, drawing, to_svg

Points = list[tuple[int, float]]  # (round, value)
_MOST_SITES = 40  # drawn one by one; of more, the band that holds the middle 80 %
_MOST_BARS = 60  # rounds; more are drawn as a line


@dataclass(frozen=True)
class Chart:
    """Hold one drawing and its heading."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class Curve:
    """Hold one named line of a chart."""

    name: str
    points: Points
    colour: str = MEAN
    dashes: str = "-"


def accuracy_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return accuracy over the rounds: mean, worst site and every site."""
    mean = _points(records, lambda record: record.accuracy)
    if not mean:
        return None
    worst = _points(records, _worst)
    curves = [Curve("mean", mean), Curve("worst site", worst, WORST, "--")]
    with drawing() as axes:
        _draw_sites(axes, records)
        _draw(axes, [curve for curve in curves if curve.points])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: percent(y, 0)))
        note = "Of the prompt so far, on each site's own held-out images."
        return _finish(axes, "accuracy", "Accuracy", note, curves, percent)


def loss_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return the training loss and the loss on held-out images."""
    curves = [
        Curve("training", _points(records, lambda record: record.loss)),
        Curve("held-out", _points(records, lambda record: record.nll), WORST, "--"),
    ]
    return _plain("loss", "Loss", "Cross-entropy in nats, weighted by images.", curves)


def density_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return the merged prompt's information density."""
    curves = [Curve("density", _points(records, lambda record: record.information_density))]
    note = "Share of the prompt's spectrum in its first singular directions."
    return _plain("density", "Information density", note, curves)


def truncation_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return what merging lost."""
    curves = [
        Curve("of the prompt", _points(records, lambda r: r.truncation_error), WORST),
        Curve("of its change", _points(records, lambda r: r.truncation_of_change), WORST, "--"),
    ]
    note = "What merging the sites' updates at the prompt's rank lost; 0 is nothing."
    return _plain("truncation", "Truncation error", note, curves)


def bytes_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return the bytes of each round's training messages."""
    curves = [
        Curve("down, to the sites", [(x.round, x.bytes_down) for x in records[1:]]),
        Curve("up, from the sites", [(x.round, x.bytes_up) for x in records[1:]], WORST, "--"),
    ]
    if len(records) < 2:
        return None
    with drawing() as axes:
        (_bars if len(records) <= _MOST_BARS else _draw)(axes, curves)
        axes.set_ylim(0, 1.06 * axes.dataLim.y1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: size(y)))
        note = "All sites together, training only, framing included."
        return _finish(axes, "bytes", "Bytes per round", note, curves, size)


def participation_chart(records: Sequence[RoundRecord]) -> Chart | None:
    """Return how many sites were asked in each round, and how many replies were merged."""
    curves = [
        Curve("asked", [(x.round, len(x.asked)) for x in records[1:]]),
        Curve("merged", [(x.round, len(x.accepted)) for x in records[1:]], WORST, "--"),
    ]
    if len(records) < 2:
        return None
    with drawing() as axes:
        (_bars if len(records) <= _MOST_BARS else _draw)(axes, curves)
        axes.set_ylim(0, 1.06 * axes.dataLim.y1)
        note = "How many were asked, and how many replies were merged."
        return _finish(axes, "participation", "Sites per round", note, curves, count)


CHARTS = (loss_chart, density_chart, truncation_chart, bytes_chart, participation_chart)


def _points(records: Sequence[RoundRecord], value: Callable[[RoundRecord], float | None]) -> Points:
    return [(record.round, y) for record in records if (y := value(record)) is not None]


def _worst(record: RoundRecord) -> float | None:
    return min((score.accuracy for score in record.sites.values() if is_shown(score)), default=None)


def _plain(name: str, title: str, note: str, curves: list[Curve]) -> Chart | None:
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    with drawing() as axes:
        _draw(axes, curves)
        low, high = axes.get_ylim()
        least = max(0.02, 0.1 * abs(high))  # a flat curve is not blown up to noise
        if high - low < least:
            axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
        return _finish(axes, name, title, note, curves, lambda y: f"{y:.4g}")


def _draw(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        x, y = zip(*curve.points, strict=True)
        marker = "o" if len(x) <= 12 else ""
        axes.plot(x, y, curve.dashes, color=curve.colour, label=curve.name, marker=marker, ms=4)


def _bars(axes: Axes, curves: Sequence[Curve]) -> None:
    for i, curve in enumerate(curves):
        x, y = zip(*curve.points, strict=True)
        axes.bar(np.asarray(x) + 0.42 * (i - 0.5), y, 0.36, color=curve.colour, label=curve.name)


def _draw_sites(axes: Axes, records: Sequence[RoundRecord]) -> None:
    """Draw each site thin, from the round in which it joined; of many, the middle 80 %."""
    sites = shown_sites(records)
    rounds = [record for record in records if record.sites]
    if len(sites) <= _MOST_SITES:
        paths = [
            [(r.round, r.sites[site].accuracy) for r in rounds if site in r.sites] for site in sites
        ]
        axes.add_collection(
            LineCollection(paths, colors=INK, alpha=0.28, linewidths=0.9, label="each site")
        )
        return
    found = [[s.accuracy for site, s in r.sites.items() if site in sites] for r in rounds]
    kept = [(r.round, *np.percentile(y, (10, 90))) for r, y in zip(rounds, found, strict=True) if y]
    x, low, high = zip(*kept, strict=True)
    axes.fill_between(x, low, high, color=INK, alpha=0.12, lw=0, label="8 of 10 sites")


def _finish(
    axes: Axes, name: str, title: str, note: str, curves: Sequence[Curve], show: Callable[..., str]
) -> Chart:
    axes.set_xlabel("round")
    last = max(x for curve in curves for x, _ in curve.points)
    axes.set_xlim(-max(0.6, 0.02 * last), last + max(0.6, 0.02 * last))  # alike in every chart
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    whole = name == "participation"
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=whole))
    axes.tick_params(axis="x", color=FAINT)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0)
    told = "; ".join(_tell(curve, show) for curve in curves if curve.points)
    return Chart(title, note, to_svg(axes, name, f"{title} per round", told))


def _tell(curve: Curve, show: Callable[..., str]) -> str:
    (first, start), (last, end) = curve.points[0], curve.points[-1]
    if first == last:
        return f"{curve.name}: {show(start)} in round {first}"
    return f"{curve.name}: from {show(start)} in round {first} to {show(end)} in round {last}"
