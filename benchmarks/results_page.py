"""Write docs/results.md from the trials that are kept; no figure comes from anywhere else."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from benchmarks.console import machine
from benchmarks.rates import SEED, choices
from benchmarks.results_parts import (
    ALPHAS,
    EMOJI_RATES,
    RATES,
    RULES,
    SEEDS,
    SITES,
    Part,
    Rates,
    merging_case,
)
from client.protocols.series import Result
from client.protocols.table import Row, cell, markdown, rows

Kept = Mapping[str, Sequence[Result]]  # by part

HEAD = """# Results

Written by `make results` (`python -m benchmarks.results`) from the trials it ran;
`--tiny-imagenet DIR` adds the natural classes. Backbone `embedded`, a small CLIP: these figures
compare methods with each other on one backbone, they are not those of ViT-B/16. Mean ± standard
deviation over seeds {seeds}, in per cent; `trained` and `sent` count numbers, `bytes up` is one
site's reply to one round ([protocols](protocols.md)). {machine}.
"""
CHOSEN = """
Each method is tuned at the learning rate, of {grid}, that did best at seed {seed} on images that
sites hold out{where}: {chosen}.
"""
WHERE = {RATES: ", in the setting of the first part", EMOJI_RATES: ", for the emoji on those"}
MISSING = "Not measured yet.\n"


def page(parts: Sequence[Part], kept: Kept, rates: Mapping[str, Rates]) -> str:
    """Return the page; a part without trials says so."""
    trials = [result for results in kept.values() for result in results]
    told = f"Measured on {machine()}, in {_minutes(trials)}" if trials else MISSING.strip(".\n")
    text = [HEAD.format(seeds=", ".join(map(str, SEEDS)), machine=told)]
    for name, found in rates.items():
        if found:
            chosen = ", ".join(f"{method} {rate:g}" for method, rate in found.items())
            grid = ", ".join(f"{rate:g}" for rate in choices()[name].grid)
            told = CHOSEN.format(grid=grid, seed=SEED, where=WHERE[name], chosen=chosen)
            text.append(f"\n{fill(told.strip(), 100)}\n")
    return "".join([*text, *(section(part, kept.get(part.name, ())) for part in parts)])


def section(part: Part, results: Sequence[Result]) -> str:
    """Return one part: how it was measured, its table, and what its pairs of cases differ by."""
    lines = [f"\n## {part.title}\n\n{fill(part.about, 100)}\n\n"]
    if not results:
        return "".join([*lines, MISSING])
    table = rows(results)
    lines.append(merging_table(table) if part.layout == "merging" else markdown(table, part.column))
    if told := list(comparisons(part, results)):
        lines.append("\n" + "\n".join(f"- {line}" for line in told) + "\n")
    return "".join(lines)


def comparisons(part: Part, results: Sequence[Result]) -> Iterator[str]:
    """Yield what each pair of cases differs by, seed by seed."""
    for one, other, metric in part.compare:
        first, second = _by_seed(results, one, metric), _by_seed(results, other, metric)
        both = sorted(first.keys() & second.keys())
        if not both:
            continue
        gaps = [100 * (first[seed] - second[seed]) for seed in both]
        mean = statistics.mean(gaps)
        spread = f" ± {statistics.stdev(gaps):.1f}" if len(gaps) > 1 else ""
        if not any(gaps):
            yield f"{one} and {other} have the same `{metric}` in all {len(gaps)} seeds."
            continue
        side = "above" if mean > 0 else "below"
        ahead = sum(gap > 0 for gap in gaps)
        yield (
            f"{one} is {abs(mean):.1f}{spread} points {side} {other} in `{metric}`; above it in "
            f"{ahead} of {len(gaps)} seeds."
        )


def merging_table(table: Sequence[Row]) -> str:
    """Return accuracy and truncation error of the rules, by sites and concentration."""
    known = {row.case: row for row in table}
    metrics = ("accuracy", "truncation_error")
    header = ["sites", "alpha", *(f"{rule}, {metric}" for metric in metrics for rule in RULES)]
    lines = [header, ["---"] * len(header)]
    for sites in SITES:
        for alpha in ALPHAS:
            found = [known.get(merging_case(rule, sites, alpha)) for rule in RULES]
            cells = [
                cell(metric, row.metrics.get(metric) if row else None)
                for metric in metrics
                for row in found
            ]
            lines.append([str(sites), f"{alpha:g}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _by_seed(results: Sequence[Result], case: str, metric: str) -> dict[int, float]:
    found = {r.seed: r.metrics.get(metric) for r in results if r.case == case}
    return {seed: value for seed, value in found.items() if value is not None}


def _minutes(trials: Sequence[Result]) -> str:
    return f"{sum(trial.seconds for trial in trials) / 60:.0f} minutes of trials"
