"""``flower-server revoke``: refuse a site's key from now on."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show
from server.deployment import sites
from server.deployment.commands.folder import FolderOption
from server.deployment.folder import DeploymentFolder


def revoke(
    site: Annotated[str, typer.Argument(help="Its name.", metavar="SITE")],
    folder: FolderOption = Path(),
    json: JsonOption = False,
) -> None:
    """Refuse a site's key from now on; a running server does so within seconds.

    What the site gave to earlier rounds stays in the prompt. Its number is not given again; its
    name may be.
    """
    place = DeploymentFolder(folder)
    place.config()  # a folder that is no deployment says so itself
    found = sites.revoke(place.path, site)
    told = {"site": found.name, "number": found.number, "revoked": True}
    show(told, f"{found.name} (site {found.number}) is refused from now on", as_json=json)
