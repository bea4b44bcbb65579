"""Summarise trials over their seeds: tables in Markdown, CSV and JSON, and plots."""

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedprompt.experiments.protocols.runner import Result
from fedprompt.storage import write_atomic

Points = list[tuple[str, float, float]]  # a name, x, y
_NATS = ("nll", "new_nll")  # all other metrics are shares
_SIZE, _DPI = (6.4, 4.4), 150  # of a plot: inches; dots an inch


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n - 1) of one metric over seeds.

    None where a seed has no such figure; a single seed has no deviation.
    """

    mean: float | None
    std: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case, summarised over its seeds."""

    case: str
    form: str
    seeds: tuple[int, ...]
    parameters: int
    sent: int
    bytes_up: int
    metrics: dict[str, Summary]


def write_results(name: str, headline: str, results: Sequence[Result], output: Path) -> None:
    """Write the tables and plots of some trials; ``headline`` is the metric that is plotted."""
    table = rows(results)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(result.seed for result in results))
    note = f"Mean ± standard deviation over seeds {seeds}, in per cent (nll: nats)."
    page = f"# {name}\n\n{note}\n\n{markdown(table)}"
    write_atomic(output / "results.md", page.encode())
    write_atomic(output / "results.csv", to_csv(table).encode())
    write_atomic(output / "results.json", to_json(name, table, results).encode())
    for file, png in plots(table, headline).items():
        write_atomic(output / file, png)


def rows(results: Sequence[Result]) -> list[Row]:
    """Return one row a case, in the order in which cases come first."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.case, []).append(result)
    return [_row(members) for members in grouped.values()]


def markdown(table: Sequence[Row], what: str = "method") -> str:
    """Return a table: shares in per cent, nll in nats, mean ± standard deviation over seeds.

    ``what`` heads the column of the cases.
    """
    names = _names(table)
    header = [what, "form", *names, "trained", "sent", "bytes up"]
    lines = [
        [row.case, row.form or "-"]
        + [cell(name, row.metrics.get(name)) for name in names]
        + [f"{count:,}" for count in (row.parameters, row.sent, row.bytes_up)]
        for row in table
    ]
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines)) + "\n"


def cell(name: str, summary: Summary | None) -> str:
    """Return mean ± deviation as a table shows it: a share in per cent, nll in nats, or "-"."""
    if summary is None or summary.mean is None:
        return "-"
    factor, digits = (1, 3) if name in _NATS else (100, 1)
    mean = f"{factor * summary.mean:.{digits}f}"
    return mean if summary.std is None else f"{mean} ± {factor * summary.std:.{digits}f}"


def to_csv(table: Sequence[Row]) -> str:
    """Return one line a case, ``NAME_mean`` and ``NAME_std`` of each metric; blank = none."""
    names = _names(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{part}" for name in names for part in ("mean", "std")]
    writer.writerow(["case", "form", "seeds", "parameters", "sent", "bytes_up", *columns])
    for row in table:
        summaries = [row.metrics.get(name, Summary(None, None)) for name in names]
        values = [value for summary in summaries for value in (summary.mean, summary.std)]
        seeds = " ".join(map(str, row.seeds))
        size = [row.parameters, row.sent, row.bytes_up]
        writer.writerow([row.case, row.form, seeds, *size, *values])
    return text.getvalue()


def to_json(protocol: str, table: Sequence[Row], results: Sequence[Result]) -> str:
    """Return rows and the trials behind them."""
    content = {
        "protocol": protocol,
        "rows": [asdict(row) for row in table],
        "trials": [asdict(result) for result in results],
    }
    return json.dumps(content, indent=1) + "\n"


def plots(table: Sequence[Row], headline: str) -> dict[str, bytes]:
    """Return PNG files by name: accuracy against numbers sent, and base against new classes.

    A plot without a point is left out. ``headline`` is the metric on the first one's y axis.
    """
    sent = _points(table, lambda row: float(row.sent), headline)
    base = _points(table, lambda row: _percent(row, "base_acc"), "new_acc")
    labels = ("numbers a client sends in a round", f"{headline} (%)")
    drawn = {}
    if sent:
        drawn["accuracy_against_sent.png"] = _scatter(sent, *labels, counts=True)
    if base:
        drawn["base_against_new.png"] = _scatter(base, "base_acc (%)", "new_acc (%)")
    return drawn


def _row(members: Sequence[Result]) -> Row:
    first = members[0]
    return Row(
        case=first.case,
        form=first.form,
        seeds=tuple(member.seed for member in members),
        parameters=first.parameters,
        sent=first.sent,
        bytes_up=first.bytes_up,
        metrics={name: _summary([m.metrics.get(name) for m in members]) for name in first.metrics},
    )


def _summary(values: Sequence[float | None]) -> Summary:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Summary(None, None)
    return Summary(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None)


def _names(table: Sequence[Row]) -> list[str]:
    """Return every metric, in the order of the first row that has it."""
    return list(dict.fromkeys(name for row in table for name in row.metrics))


def _points(table: Sequence[Row], x: Callable[[Row], float | None], y: str) -> Points:
    points = [(row.case, x(row), _percent(row, y)) for row in table]
    return [(name, x, y) for name, x, y in points if x is not None and y is not None]


def _percent(row: Row, metric: str) -> float | None:
    summary = row.metrics.get(metric)
    return None if summary is None or summary.mean is None else 100 * summary.mean


def _scatter(points: Points, x_label: str, y_label: str, *, counts: bool = False) -> bytes:
    """Return a PNG file with a named dot for each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
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
