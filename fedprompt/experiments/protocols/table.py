"""Sum trials up over their seeds, and write them as Markdown, CSV and JSON."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fedprompt.experiments.protocols.series import Result

_NATS = ("nll", "new_nll")  # all other metrics are shares


@dataclass(frozen=True)
class Summary:
    """Hold mean and standard deviation (n - 1) of one metric over seeds.

    None: a seed has no such figure, or there is a single seed, which deviates from nothing.
    """

    mean: float | None
    std: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one case."""

    case: str
    form: str
    seeds: tuple[int, ...]
    parameters: int
    sent: int
    bytes_up: int
    metrics: dict[str, Summary]


def rows(results: Sequence[Result]) -> list[Row]:
    """Return one row a case, in the order in which cases come first."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.case, []).append(result)
    return [_row(members) for members in grouped.values()]


def markdown(found: Sequence[Row], what: str = "method") -> str:
    """Return a table: shares in per cent, nll in nats, mean ± standard deviation over seeds.

    ``what`` heads the column of the cases.
    """
    names = _names(found)
    header = [what, "form", *names, "trained", "sent", "bytes up"]
    lines = [
        [row.case, row.form or "-"]
        + [cell(name, row.metrics.get(name)) for name in names]
        + [f"{count:,}" for count in (row.parameters, row.sent, row.bytes_up)]
        for row in found
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


def to_csv(found: Sequence[Row]) -> str:
    """Return one line a case, ``NAME_mean`` and ``NAME_std`` of each metric; blank = none."""
    names = _names(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{part}" for name in names for part in ("mean", "std")]
    writer.writerow(["case", "form", "seeds", "parameters", "sent", "bytes_up", *columns])
    for row in found:
        summaries = [row.metrics.get(name, Summary(None, None)) for name in names]
        values = [value for summary in summaries for value in (summary.mean, summary.std)]
        seeds = " ".join(map(str, row.seeds))
        size = [row.parameters, row.sent, row.bytes_up]
        writer.writerow([row.case, row.form, seeds, *size, *values])
    return text.getvalue()


def to_json(protocol: str, found: Sequence[Row], results: Sequence[Result]) -> str:
    """Return rows and the trials behind them."""
    told = {
        "protocol": protocol,
        "rows": [asdict(row) for row in found],
        "trials": [asdict(result) for result in results],
    }
    return json.dumps(told, indent=1) + "\n"


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


def _names(found: Sequence[Row]) -> list[str]:
    """Return every metric, in the order of the first row that has it."""
    return list(dict.fromkeys(name for row in found for name in row.metrics))
