"""``flower-server enrol``: make the one file that a site joins with."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show
from server.deployment import enrolment
from server.deployment.commands.folder import FolderOption
from server.deployment.folder import DeploymentFolder


def enrol(
    site: Annotated[
        str, typer.Argument(help="Its name: lower-case letters, digits, hyphens.", metavar="SITE")
    ],
    images: Annotated[
        int,
        typer.Option(
            min=0, help="Most images it may speak for; 0 = none agreed, it weighs little."
        ),
    ] = 0,
    output: Annotated[
        Path | None, typer.Option(help="The bundle's file.", show_default="SITE.fedprompt")
    ] = None,
    folder: FolderOption = Path(),
    json: JsonOption = False,
) -> None:
    """Make the one file that a site joins with; it holds the site's private key.

    The server may run: it lets the site in within seconds.
    """
    path = output or Path(f"{site}{enrolment.SUFFIX}")
    made = enrolment.enrol(DeploymentFolder(folder), site, images, path)
    told = {
        "site": made.name,
        "number": made.number,
        "bundle": str(path),
        "address": made.address,
        "fingerprint": made.fingerprint,
    }
    lines = (
        f"{path} is for {made.name} alone: it holds its key, treat it as a password.\n"
        f"At the site: flower-client join {path.name} --data IMAGES\n"
        f"Fingerprint, to compare by telephone: {made.fingerprint}"
    )
    show(told, lines, as_json=json)
