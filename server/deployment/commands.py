"""The verbs of ``flower-server`` that change a deployment: init, enrol, revoke and renew."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.home import at_home
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.protocol import certificates
from server.deployment import create_folder, credentials, issuer, sites
from server.deployment.command import FolderArgument, FolderOption
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
    result = {
        "folder": str(folder),
        "address": address,
        "classes": list(names),
        "fingerprint": fingerprint,
        "certificate_days": days,
    }
    show(result, _next_steps(folder, len(names), fingerprint), as_json=json)


def _next_steps(folder: Path, classes: int, fingerprint: str) -> str:
    return "\n".join(
        [
            f"{folder} is a deployment of {classes} classes. Next:",
            f"  look through {folder}/server.toml",
            f"  flower-server enrol SITE --folder {folder}    # once for each site",
            f"  flower-server start {folder}",
            f"Fingerprint of its CA: {fingerprint}",
            f"{folder}/ca.key signs invitations and certificates: keep a copy elsewhere. "
            "Only enrol and renew need it; the server runs without it.",
        ]
    )


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
        Path | None, typer.Option(help="The invitation's file.", show_default="SITE.fedprompt")
    ] = None,
    folder: FolderOption = Path(),
    json: JsonOption = False,
) -> None:
    """Make the one file that a site joins with; it holds the site's private key.

    The server may run: it lets the site in within seconds.
    """
    from server.deployment import enrolment  # loads torch, which the other verbs need not wait for

    path = output or Path(f"{site}{enrolment.SUFFIX}")
    made = enrolment.enrol(DeploymentFolder(folder), site, images, path)
    result = {
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
    show(result, lines, as_json=json)


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
    revoked = sites.revoke(place.path, site)
    result = {"site": revoked.name, "number": revoked.number, "revoked": True}
    show(result, f"{revoked.name} (site {revoked.number}) is refused from now on", as_json=json)


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

    With --revoke-old, sites that get a new invitation or the new ca.crl refuse the old certificate.
    """
    deployment = DeploymentFolder(folder)
    host = deployment.config().dialled
    validity = credentials.renew(deployment, host, days, revoke_old=revoke_old)
    result = {"host": host, "days": validity.days, "revoked_old": revoke_old}
    lines = [f"the new certificate for {host} is good for {validity.days} days"]
    lines += ["start a running server again so that it takes it"]
    if revoke_old:
        lines += [f"send {deployment.revocations} to the sites: it names the old one"]
    show(result, "\n".join(lines), as_json=json)
