"""How every benchmark prints: a table for a person, one JSON object as the last line for a tool."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[object]]


def machine() -> str:
    """Name the machine that figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{os.cpu_count()} cores of {model}"


def show(title: str, header: Sequence[str], rows: Rows) -> None:
    """Print one table."""
    table = Table(title=title, caption=machine())
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row])
    Console().print(table)


def markdown(header: Sequence[str], rows: Rows) -> str:
    """Return one table as a page holds it."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def run(measure: Callable[[], Mapping[str, Any]]) -> None:
    """Run a benchmark's ``measure``, which prints its tables and returns its figures."""

    def command(
        as_json: bool = typer.Option(False, "--json", help="End with one JSON line."),
    ) -> None:
        figures = {**measure(), "machine": machine()}
        if as_json:
            typer.echo(json.dumps(figures))

    typer.run(command)
