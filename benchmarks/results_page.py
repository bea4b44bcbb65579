"""Write docs/results.md from the trials that are kept; no figure comes from anywhere else."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from textwrap import fill

from benchmarks import rates as rating
from benchmarks.console import machine
from benchmarks.intervals import half_width, widening
from benchmarks.results_parts import (
    ALPHAS,
    EMOJI_RATES,
    RATES,
    RULES,
    SEEDS,
    SITES,
    VISUAL_RATES,
    Part,
    Rates,
    merging_case,
)
from fedprompt.experiments.protocols.results import Row, Summary, cell, markdown, rows
from fedprompt.experiments.protocols.runner import Result

Kept = Mapping[str, Sequence[Result]]  # by part

HEAD = """# Results

Written by `make results` (`python -m benchmarks.results`) from the trials it ran;
`--tiny-imagenet DIR` adds the natural classes. Backbone `embedded-cnn`, the small CLIP of the demo,
where a part names no other: what users of the embedded CLIPs reach, and the cheapest to measure,
because text prompts and heads see image features that are computed once. Its image tower takes no
tokens, so prompts of the image tower are measured on `embedded`. The figures compare methods with
each other on one backbone; they are not those of ViT-B/16. The demo's own are in
[benchmarks](benchmarks.md#accuracy).

Mean over seeds {seeds} and 95 % interval of the mean (Student's t: for three seeds 2.5 times the
standard deviation), in per cent; `trained` and `sent` count numbers, `bytes up` is one site's reply
to one round ([protocols](protocols.md)). {machine}.
"""
CHOSEN = """
Each method is tuned at the learning rate that did best at seed {seed} on images that sites hold
out{where}, of {grid} and, while the best was the lowest or highest tried, the next one a factor of
{step} away: {chosen}.{edge}
"""
EDGE = " The best of {names} is the last that was tried."
WHERE = {
    RATES: ", in the setting of the first part",
    VISUAL_RATES: ", for `embedded` on it",
    EMOJI_RATES: ", for the emoji on those",
}
MISSING = "Not measured yet"
LEFT_OUT = """
Not measured on this edition of the embedded CLIP, and so not on this page: {titles}.
"""


def page(parts: Sequence[Part], kept: Kept, rates: Mapping[str, Rates]) -> str:
    """Return the page; parts without trials are only named."""
    trials = [result for results in kept.values() for result in results]
    told = f"Measured on {machine()}, in {_minutes(trials)}" if trials else MISSING
    text = [HEAD.format(seeds=", ".join(map(str, SEEDS)), machine=told)]
    shown = [part for part in parts if kept.get(part.name)]
    text += [_told(name, rates[name]) for name in dict.fromkeys(part.rates for part in shown)]
    text += [section(part, kept[part.name]) for part in shown]
    if missing := [part.title for part in parts if part not in shown]:
        text.append(f"\n{fill(LEFT_OUT.strip().format(titles='; '.join(missing)), 100)}\n")
    return "".join(text)


def _told(name: str, found: Rates) -> str:
    """Return how one set of learning rates was chosen, and which they are."""
    last = rating.at_the_edge(found)
    told = CHOSEN.format(
        grid=", ".join(f"{rate:g}" for rate in rating.GRID),
        step=rating.STEP,
        seed=rating.SEED,
        where=WHERE[name],
        chosen=", ".join(f"{method} {rate:g}" for method, rate in found.items()),
        edge=EDGE.format(names=", ".join(last)) if last else "",
    )
    return f"\n{fill(told.strip(), 100)}\n"


def section(part: Part, results: Sequence[Result]) -> str:
    """Return one part: how it was measured, its table, and what its pairs of cases differ by."""
    lines = [f"\n## {part.title}\n\n{fill(part.about, 100)}\n\n"]
    table = [_with_intervals(row) for row in rows(results)]
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
        spread = f" ± {half_width(gaps):.1f}" if len(gaps) > 1 else ""
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


def _with_intervals(row: Row) -> Row:
    """Return a row whose deviations are half the widths of 95 % intervals of the means."""
    factor = widening(len(row.seeds)) if len(row.seeds) > 1 else 0.0
    metrics = {
        name: Summary(found.mean, None if found.std is None else factor * found.std)
        for name, found in row.metrics.items()
    }
    return replace(row, metrics=metrics)


def _by_seed(results: Sequence[Result], case: str, metric: str) -> dict[int, float]:
    found = {r.seed: r.metrics.get(metric) for r in results if r.case == case}
    return {seed: value for seed, value in found.items() if value is not None}


def _minutes(trials: Sequence[Result]) -> str:
    return f"{sum(trial.seconds for trial in trials) / 60:.0f} minutes of trials"
