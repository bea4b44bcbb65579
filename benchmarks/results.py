"""Run what docs/results.md shows and write it: ``python -m benchmarks.results``.

Every case and seed is kept in ``--output`` and not run again, so a run that was stopped goes on. A
case that fails is told and left out; the command ends with its error after all others have run.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import rates as rating
from benchmarks.results_page import page
from benchmarks.results_parts import SEEDS, Cases, Part, Rates, parts
from benchmarks.tiny_imagenet import unpack
from fedprompt.data.cache import cache_folder
from fedprompt.errors import ConfigError, FedpromptError
from fedprompt.experiments.protocols import Protocol
from fedprompt.experiments.protocols.results import write_results
from fedprompt.experiments.protocols.runner import Series
from fedprompt.settings.run_config import load_flat
from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic

UNPACKED = "tiny-imagenet-unseen"  # in the cache
PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def series(name: str, protocol: Protocol, cases: Cases, given: Flat, output: Path) -> Series:
    """Return one part's series, kept in a folder of its own."""
    return Series(
        name=name,
        protocol=protocol,
        cases=cases,
        seeds=(rating.SEED,) if protocol is rating.PROTOCOL else SEEDS,
        given=given,
        output=output / name,
    )


def tell(name: str, line: str) -> None:
    """Say how far a part is."""
    print(f"{name}: {line}", file=sys.stderr, flush=True)


def chosen_parts(only: str, natural: Flat | None) -> list[Part]:
    """Return the parts of a list of names with commas between, all for an empty one.

    Raises
    ------
    ConfigError
        A name is unknown.
    """
    every = parts(natural)
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [part.name for part in every]
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(
            f"no part is named {', '.join(unknown)}; expected {', '.join(known)}"
            + ("" if natural else "; those of the natural classes need --tiny-imagenet")
        )
    return [part for part in every if not names or part.name in names]


def rates_series(name: str, more: Flat, output: Path) -> Series:
    """Return one choice of learning rates, wider where what is kept asks for it."""
    choice = rating.choices()[name]
    cases: Cases = {}
    wider = choice.cases()
    while not wider.keys() <= cases.keys():
        cases |= wider
        found = series(name, rating.PROTOCOL, cases, choice.given | more, output)
        wider = choice.beyond(found.kept())
    return found


def choose_rates(name: str, more: Flat, output: Path, workers: int) -> list[FedpromptError]:
    """Try rates until no method's best one is at an edge; return what ended trials that failed."""
    failed: list[FedpromptError] = []
    one = rates_series(name, more, output)
    while not failed and len(one.kept()) < len(one.cases):
        failed = one.failures(partial(tell, name), workers)
        one = rates_series(name, more, output)
    return failed


def part_series(part: Part, rates: Rates, more: Flat, output: Path) -> Series:
    """Return one part at the chosen rates."""
    return series(part.name, part.protocol, part.cases(rates), part.given | more, output)


def measure(chosen: Sequence[Part], more: Flat, output: Path, workers: int) -> list[FedpromptError]:
    """Choose learning rates and run the parts; return what ended the trials that failed."""
    failed: list[FedpromptError] = []
    for name in dict.fromkeys(part.rates for part in chosen):
        failed += choose_rates(name, more, output, workers)
    for part in chosen:
        one = part_series(part, kept_rates(part.rates, more, output), more, output)
        failed += one.failures(partial(tell, part.name), workers)
        if found := one.kept():
            write_results(part.name, part.protocol.headline, found, one.output)
    return failed


def kept_rates(name: str, more: Flat, output: Path) -> Rates:
    """Return the rates that were chosen."""
    return rating.chosen(rates_series(name, more, output).kept())


def written(every: Sequence[Part], more: Flat, output: Path) -> str:
    """Return the page of everything that is kept."""
    rates = {part.rates: kept_rates(part.rates, more, output) for part in every}
    kept = {part.name: part_series(part, rates[part.rates], more, output).kept() for part in every}
    return page(every, kept, rates)


def main(
    output: Annotated[Path, typer.Option(help="Folder of all trials.")] = Path("runs/results"),
    tiny_imagenet: Annotated[
        Path | None, typer.Option(help="Folder of Tiny-ImageNet's shards and class file.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="Names of parts with commas between; all if none.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes that run trials.")] = 2,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of every part.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Choose learning rates, run every part over the seeds and write the page."""
    natural = unpack(tiny_imagenet, cache_folder() / UNPACKED) if tiny_imagenet else None
    more = load_flat(None, override or ())
    failed = measure(chosen_parts(only, natural), more, output, workers)
    every = parts(natural or {})  # also what an earlier run of this folder kept
    write_atomic(to, written(every, more, output).encode())
    typer.echo(f"{to} written; tables and plots in {output}")
    if failed:
        typer.echo(f"{len(failed)} trials failed, first: {failed[0]}", err=True)
        raise typer.Exit(failed[0].exit_code)


if __name__ == "__main__":
    typer.run(main)
