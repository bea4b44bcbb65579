"""The options that every command takes, and how results are printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from fedprompt.text import json_text, printable

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with one table per section.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


_SHOWN = "fedprompt.shown"


def show(result: Mapping[str, Any], lines: str, *, as_json: bool) -> None:
    """Print a result: one JSON object for a program, or lines for a person."""
    told = json_text(result) if as_json else "\n".join(map(printable, lines.split("\n")))
    typer.echo(told)
    if context := click.get_current_context(silent=True):
        context.meta[_SHOWN] = True


def shown(context: click.Context) -> bool:
    """Say whether a command has printed its result."""
    return bool(context.meta.get(_SHOWN))
