"""The ``flower-server`` command: a deployment's folder, its sites and its run."""

from pathlib import Path
from typing import Annotated

import click
import typer

from fedprompt.command_line import HELP, LazyGroup, run

FolderOption = Annotated[
    Path,
    typer.Option(
        "--folder", envvar="FLOWER_SERVER_FOLDER", help="Deployment folder of `flower-server init`."
    ),
]

FolderArgument = Annotated[
    Path, typer.Argument(envvar="FLOWER_SERVER_FOLDER", help="Deployment folder.")
]

# verb -> (where it lives, what it does), in the order of a deployment's life
VERBS = {
    "init": ("server.deployment.commands:init", "Make a deployment folder."),
    "enrol": ("server.deployment.commands:enrol", "Make the one file a site joins with."),
    "start": ("server.deployment.supervisor:start", "Serve the sites until the run is done."),
    "status": ("server.deployment.status:status", "Show sites, rounds and certificate."),
    "revoke": ("server.deployment.commands:revoke", "Refuse a site's key from now on."),
    "renew": ("server.deployment.commands:renew", "Replace the server's certificate."),
}


@click.group(
    cls=LazyGroup,
    program="flower-server",
    verbs=VERBS,
    hint="start it again and it goes on after the last committed round",
    context_settings=HELP,
)
@click.version_option(package_name="fedprompt")
def group() -> None:
    """Run a federation over real sites, from one folder: TLS and a key for each site.

    Exit codes are those of `fedprompt`: 0 done, 1 error, 2 configuration, 8 quorum, 12 storage,
    13 privacy, 130 interrupted, 143 terminated.
    """


def main() -> None:
    """Run the command line."""
    run(group)
