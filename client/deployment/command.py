"""The ``flower-client`` command: each verb is imported when it is called."""

from pathlib import Path
from typing import Annotated

import click
import typer

from fedprompt.command_line import HELP, LazyGroup, run

FolderArgument = Annotated[Path, typer.Argument(help="The site's folder, as `join` made it.")]

VERBS = {
    "join": ("client.deployment.join:join", "Check everything, then take part."),
    "start": ("client.deployment.supervisor:start", "Take part again, from a folder made by join."),
    "doctor": ("client.deployment.preflight:doctor", "Repeat the checks of join."),
    "status": ("client.deployment.status:status", "Show what this site did and sent."),
    "egress": ("client.deployment.status:egress", "List everything that left this site."),
}


@click.group(
    cls=LazyGroup,
    program="flower-client",
    verbs=VERBS,
    hint="start it again with `flower-client start FOLDER`",
    context_settings=HELP,
)
@click.version_option(package_name="fedprompt")
def group() -> None:
    """Take part in a federation as one site: your images stay, a few hundred numbers leave.

    Exit codes: 0 done or told to stop, 1 error, 2 configuration, 3 data, 4 backbone, 12 storage,
    14 policy, 15 the server cannot be reached or trusted, 16 the server refuses this site's key,
    130 interrupted, 143 terminated.
    """


def main() -> None:
    """Run the command line ``flower-client``."""
    run(group)
