"""``flower-client doctor``: repeat the checks of join at any time."""

from collections.abc import Sequence
from dataclasses import asdict

import typer

from client.deployment.preflight import Finding, examine
from client.deployment.site_folder import SiteFolder
from client.deployment.start import FolderArgument
from fedprompt.errors import FedpromptError
from fedprompt.options import JsonOption, show


def doctor(folder: FolderArgument, json: JsonOption = False) -> None:
    """Say what is in order and what is not; nothing of this site is sent.

    The exit code is that of the first check that failed.
    """
    findings = look(SiteFolder(folder), quiet=json)
    if json:
        show({"findings": [asdict(f) for f in findings]}, "", as_json=True)
    refuse_failed(findings)


def look(folder: SiteFolder, *, quiet: bool = False) -> list[Finding]:
    """Run the checks and print each as it comes.

    Raises
    ------
    ConfigError
        This is no site's folder.
    """
    folder.node()
    findings = []
    for finding in examine(folder):
        findings.append(finding)
        if not quiet:
            typer.echo(f"{finding.status:8}{finding.name:12}{finding.detail}")
    return findings


def refuse_failed(findings: Sequence[Finding]) -> None:
    """End with the exit code of the first check that failed.

    Raises
    ------
    FedpromptError
        Names the checks that failed.
    """
    failed = [finding for finding in findings if finding.status == "failed"]
    if not failed:
        return
    error = FedpromptError(
        f"not ready: {', '.join(f.name for f in failed)}; the lines above say what to do, and "
        "nothing was sent"
    )
    error.exit_code = failed[0].exit_code
    raise error
