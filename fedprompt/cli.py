"""The ``fedprompt`` command: each verb lives with its owner and is imported when it is called."""

import importlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import typer

from fedprompt.errors import FedpromptError
from fedprompt.options import shown

# verb -> (where it lives, what it does); strings, because the library imports no application
COMMANDS = {
    "doctor": ("fedprompt.doctor:doctor", "Say what this machine has and lacks."),
    "simulate": ("server.simulate:simulate", "Tune a prompt over simulated sites."),
    "train": ("client.commands.train:train", "Tune a prompt on one site's images alone."),
    "eval": ("client.commands.eval:evaluate", "Score a prompt on held-out images."),
    "export": ("export.commands.export:export", "Fuse a prompt into one ONNX file."),
    "verify": ("export.commands.verify:verify", "Check an ONNX file's parity without torch."),
    "predict": ("export.commands.predict:predict", "Classify images with an ONNX file."),
    "report": ("server.report.command:report", "Make one HTML page of a run."),
}

_INTERRUPTED = 130  # as a shell reports SIGINT


class LazyGroup(click.Group):
    """List commands without importing them; torch is loaded by the verbs that need it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of a run."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one verb."""
        if cmd_name not in COMMANDS:
            return None
        return command(cmd_name, resolve(COMMANDS[cmd_name][0]))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; an expected error is one line and its own exit code."""
        as_json = "--json" in ctx.args  # here still the verb's own
        try:
            with installed():
                return super().invoke(ctx)
        except FedpromptError as error:
            message = " ".join(str(error).split())
            _tell(message, error.exit_code, as_json=as_json and not shown(ctx))
            typer.echo(f"fedprompt: {message}", err=True)
            ctx.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            typer.echo("fedprompt: interrupted; a simulation goes on with --resume", err=True)
            ctx.exit(_INTERRUPTED)
        except click.UsageError as error:  # click itself writes it to stderr
            _tell(error.format_message(), error.exit_code, as_json=as_json)
            raise


def resolve(reference: str) -> Any:
    """Import ``module:attribute``.

    Raises
    ------
    FedpromptError
        A package of the training installation is missing.
    """
    module, _, attribute = reference.partition(":")
    with installed():
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def installed() -> Iterator[None]:
    """Name the package that an edge installation lacks, instead of a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise FedpromptError(
            f"this command needs the package {error.name!r}, which is not installed; "
            "pip install 'fedprompt[cpu]' or 'fedprompt[gpu]'"
        ) from error


def command(name: str, function: Callable[..., None]) -> click.Command:
    """Return a click command made from a function with typer annotations."""
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(name)(function)
    made: click.Command = typer.main.get_command(app)
    return made


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedprompt")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens inside.")
def group(verbose: bool) -> None:
    """Tune a few hundred numbers over many sites, fuse them into one ONNX file, run it anywhere.

    Exit codes: 0 done, 1 error, 2 configuration, 3 data, 4 backbone, 5 prompt, 6 artefact,
    7 checkpoint, 8 quorum, 9 parity, 10 ONNX Runtime, 11 ONNX file, 12 storage, 130 interrupted.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(name)s: %(message)s"
    )


def main() -> None:
    """Run the command line."""
    group(prog_name="fedprompt")


def _tell(message: str, code: int, *, as_json: bool) -> None:
    """Print an error where a program looks for the result, unless a result is there already."""
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
