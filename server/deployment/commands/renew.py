"""``flower-server renew``: replace the server's key and certificate."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show
from server.deployment import credentials, issuer
from server.deployment.commands.folder import FolderArgument
from server.deployment.folder import DeploymentFolder


def renew(
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days the new certificate is good.")
    ] = issuer.DAYS,
    revoke_old: Annotated[
        bool,
        typer.Option("--revoke-old", help="Put the old one on the CA's list: its key was stolen."),
    ] = False,
    folder: FolderArgument = Path(),
    json: JsonOption = False,
) -> None:
    """Replace the server's key and certificate; sites need nothing new, they trust the CA.

    With --revoke-old, sites that get a bundle or the file ca.crl from now on refuse the old one.
    """
    place = DeploymentFolder(folder)
    host = place.config().dialled
    made = credentials.renew(place, host, days, revoke_old=revoke_old)
    told = {"host": host, "days": made.days, "revoked_old": revoke_old}
    lines = [f"the new certificate for {host} is good for {made.days} days"]
    lines += ["start a running server again so that it takes it"]
    if revoke_old:
        lines += [f"send {place.revocations} to the sites: it names the old one"]
    show(told, "\n".join(lines), as_json=json)
