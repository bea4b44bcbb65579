"""Run an evaluation protocol over methods and seeds, to tables and plots."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from fedprompt.errors import ConfigError
from fedprompt.experiments.protocols import PROTOCOLS
from fedprompt.experiments.protocols.results import markdown, rows, write_results
from fedprompt.experiments.protocols.runner import Series
from fedprompt.prompts.methods import METHODS, UNTRAINED
from fedprompt.settings.run_config import load_flat
from fedprompt.settings.section import Flat


def run_protocol(
    protocol: str,
    methods: str,
    seeds: str,
    targets: Sequence[Path],
    given: Flat,
    output: Path,
    workers: int,
) -> tuple[dict[str, Any], str]:
    """Run the unfinished trials, write results.md, .csv, .json and plots, and return the table.

    It is returned for a program and for a person.

    Raises
    ------
    ConfigError
        The protocol, a method, a seed or a target is not valid.
    FedpromptError
        A trial failed; the finished ones are in the tables.
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
        targets={path.stem: load_flat(path) for path in targets},
    )
    try:
        series.results(partial(typer.echo, err=True), workers)
    finally:
        results = series.kept()
        if results:
            write_results(protocol, series.protocol.headline, results, output)
    table = rows(results)
    result = {"protocol": protocol, "output": str(output), "methods": [row.case for row in table]}
    return result, f"{markdown(table)}in {output}"


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
