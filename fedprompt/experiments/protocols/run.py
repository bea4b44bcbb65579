"""Run an evaluation protocol over methods and seeds, to tables and plots."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from fedprompt.errors import ConfigError
from fedprompt.experiments.protocols import PROTOCOLS
from fedprompt.experiments.protocols.plots import plots
from fedprompt.experiments.protocols.series import Result, Series
from fedprompt.experiments.protocols.table import markdown, rows, to_csv, to_json
from fedprompt.experiments.simulation import federate
from fedprompt.prompts.methods import METHODS, UNTRAINED
from fedprompt.settings.run_config import load_flat
from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic


def run_protocol(
    protocol: str,
    methods: str,
    seeds: str,
    targets: Sequence[Path],
    given: Flat,
    output: Path,
    workers: int,
) -> tuple[dict[str, Any], str]:
    """Run what is not done yet and write results.md, .csv, .json and plots.

    Return what a program and what a person is told of them.

    Raises
    ------
    ConfigError
        Protocol, methods, seeds or targets are not what they should be.
    FedpromptError
        A trial failed; what is done is in the tables.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"no protocol is named {protocol!r}; expected {', '.join(PROTOCOLS)}")
    series = Series(
        name=protocol,
        protocol=PROTOCOLS[protocol],
        cases={name: case_of(name) for name in chosen_methods(methods)},
        seeds=chosen_seeds(seeds),
        given=given,
        output=output,
        federate=federate,
        targets={path.stem: load_flat(path) for path in targets},
    )
    try:
        series.results(partial(typer.echo, err=True), workers)
    finally:
        found = series.kept()
        if found:
            write_results(protocol, PROTOCOLS[protocol].headline, found, output)
    table = rows(found)
    told = {"protocol": protocol, "output": str(output), "methods": [row.case for row in table]}
    return told, f"{markdown(table)}in {output}"


def write_results(name: str, headline: str, found: Sequence[Result], output: Path) -> None:
    """Write the tables and plots of some trials; ``headline`` is the metric that is plotted."""
    table = rows(found)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(result.seed for result in found))
    told = f"Mean ± standard deviation over seeds {seeds}, in per cent (nll: nats)."
    head = f"# {name}\n\n{told}\n"
    write_atomic(output / "results.md", f"{head}\n{markdown(table)}".encode())
    write_atomic(output / "results.csv", to_csv(table).encode())
    write_atomic(output / "results.json", to_json(name, table, found).encode())
    for name, png in plots(table, headline).items():
        write_atomic(output / name, png)


def chosen_methods(text: str) -> list[str]:
    """Return the methods of a list with commas between; ``all`` = every one.

    Raises
    ------
    ConfigError
        A name or form is unknown, or there is none.
    """
    known = (*UNTRAINED, *METHODS)
    names = list(known) if text.strip() == "all" else _listed(text)
    for name in names:
        method, _, form = name.partition(":")
        if method not in known or form not in ("", "full", "lowrank"):
            raise ConfigError(
                f"--methods: found {name!r}; expected all, or names of {', '.join(known)}, with "
                ":full or :lowrank behind them if wanted"
            )
    if not names:
        raise ConfigError("--methods names no method; give some, such as template,dip,coop")
    return names


def case_of(method: str) -> Flat:
    """Return the settings that a method's name means, ``:FORM`` behind it or not."""
    name, _, form = method.partition(":")
    return {"prompt.method": name, "prompt.form": form} if form else {"prompt.method": name}


def chosen_seeds(text: str) -> list[int]:
    """Return the seeds of a list with commas between.

    Raises
    ------
    ConfigError
        One is no whole number from 0 on, or there is none.
    """
    try:
        seeds = [int(part) for part in _listed(text)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"--seeds: found {text!r}; expected numbers from 0 on, such as 0,1,2")
    return seeds


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
