"""``flower-server init``: make a deployment folder."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.home import at_home
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.protocol import certificates
from server.deployment import create_folder, credentials, issuer
from server.deployment.folder import DeploymentFolder


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    address: Annotated[
        str, typer.Option(help="HOST:PORT that sites dial; the certificate is for this host.")
    ],
    classes: Annotated[
        str, typer.Option(help="Class names with commas between, or a .txt or .json file.")
    ],
    config: ConfigOption = None,
    override: SetOption = None,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days the server's certificate is good.")
    ] = issuer.DAYS,
    json: JsonOption = False,
) -> None:
    """Make a deployment folder: settings, classes, a CA and the server's certificate.

    Example: flower-server init hospitals --address fed.example.org:9092 --classes healthy,ill
    """
    made = DeploymentFolder(folder)
    names = create_folder.create(
        made, address, at_home(classes), create_folder.run_of(config, override or ()), days
    )
    fingerprint = certificates.fingerprint(credentials.read(made.ca_certificate))
    told = {
        "folder": str(folder),
        "address": address,
        "classes": list(names),
        "fingerprint": fingerprint,
        "certificate_days": days,
    }
    show(told, _lines(folder, len(names), fingerprint), as_json=json)


def _lines(folder: Path, classes: int, fingerprint: str) -> str:
    return "\n".join(
        [
            f"{folder} is a deployment of {classes} classes. Next:",
            f"  look through {folder}/server.toml",
            f"  flower-server enrol SITE --folder {folder}    # once for each site",
            f"  flower-server start {folder}",
            f"Fingerprint of its CA: {fingerprint}",
            f"{folder}/ca.key signs bundles and certificates: keep a copy elsewhere. "
            "Only enrol and renew need it; the server runs without it.",
        ]
    )
