"""Check what a person wants to know before joining, one line each; nothing of the site is sent.

``flower-client join`` runs the checks, ``flower-client doctor`` repeats them.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import typer

from client.deployment import tls_probe
from client.deployment.command import FolderArgument
from client.deployment.egress_log import EgressLog
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from fedprompt.data.classes import in_ascii, listed, one_form
from fedprompt.errors import BackboneError, ConfigError, FedpromptError, LinkError, PolicyError
from fedprompt.options import JsonOption, show
from fedprompt.protocol import address
from fedprompt.settings.data import DataConfig
from fedprompt.settings.section import Flat, section

_AHEAD, _BEHIND = 5.0, 300.0  # seconds that Flower lets a site's clock be off (node_auth.py)
_RESOLUTION = 1.0  # seconds, of an HTTP date
_SOON = 30  # days before the end of the server's certificate that a person should know
_LEAST_DISK = 1.0  # GB, for logs and features


@dataclass(frozen=True)
class Finding:
    """The result of one check, and the exit code of its failure."""

    name: str
    status: Literal["ok", "note", "failed"]
    detail: str
    exit_code: int = 0


def examine(folder: SiteFolder) -> Iterator[Finding]:
    """Yield the result of each check, quick ones first.

    A failed check does not stop the others.
    """
    for name, check in CHECKS.items():
        try:
            status, detail = check(folder)
        except FedpromptError as error:
            yield Finding(name, "failed", " ".join(str(error).split()), error.exit_code)
        else:
            yield Finding(name, status, detail)


Outcome = tuple[Literal["ok", "note"], str]


def _invitation(folder: SiteFolder) -> Outcome:
    invitation = folder.invitation()
    age = (datetime.now(UTC) - datetime.fromisoformat(invitation.issued)).days
    return "ok", f"site {invitation.name} (number {invitation.number}), issued {age} days ago"


def _version(folder: SiteFolder) -> Outcome:
    server_version, site_version = folder.invitation().version, version("fedprompt")
    if server_version != site_version:
        raise ConfigError(
            f"the server runs fedprompt {server_version}, this site {site_version}; both must be "
            f"the same: pip install fedprompt=={server_version}"
        )
    return "ok", f"fedprompt {site_version}, as the server"


def _policy(folder: SiteFolder) -> Outcome:
    policy, node, invitation = Policy.read(folder.policy), folder.node(), folder.invitation()
    if node.server not in policy.servers:
        raise PolicyError(f"servers: {node.server} of site.toml is not listed in {folder.policy}")
    if invitation.method not in policy.methods:
        raise PolicyError(
            f"methods: {invitation.method} is tuned, {folder.policy} does not list it"
        )
    kept = ", ".join(sorted(policy.metrics)) or "no number"
    masked = ", masked updates only" if policy.secure_aggregation_only else ""
    rules = f"{policy.min_sites} sites at least, norm {policy.max_norm:g}{masked}"
    return "ok", f"{rules}, {kept} may leave"


def _server(folder: SiteFolder) -> Outcome:
    result = _probe(folder)
    if result.expires is None:
        return "note", "plaintext, for tests on this machine only"
    days = (result.expires - datetime.now(UTC)).days
    server = folder.node().server
    way = tls_probe.describe_proxy(address.split(server)[0])
    detail = f"{server}{way and f' {way}'}, certificate until {result.expires.date()}"
    if days < _SOON:
        return (
            "note",
            f"{detail}: {days} days left; tell the server's administrator (flower-server renew)",
        )
    return "ok", detail


def _clock(folder: SiteFolder) -> Outcome:
    try:
        ahead = _probe(folder).ahead
    except LinkError:
        return "note", "not compared: the server cannot be asked for its time"
    if ahead is None:
        return "note", "not compared: the server does not tell its time"
    detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    if ahead > _AHEAD + _RESOLUTION or ahead < -(_BEHIND - _RESOLUTION):
        raise LinkError(
            f"this machine's clock is {detail}, and the server takes {_AHEAD:.0f} s ahead to "
            f"{_BEHIND:.0f} s behind; set it by NTP"
        )
    is_close = -_BEHIND / 2 < ahead < _AHEAD / 2
    return ("ok", detail) if is_close else ("note", f"{detail}; set it by NTP")


def _backbone(folder: SiteFolder) -> Outcome:
    from fedprompt.backbone.fingerprint import superseded
    from fedprompt.backbone.load import shared_backbone
    from fedprompt.settings.backbone import BackboneConfig

    agreed = folder.invitation()
    clip = shared_backbone(section(folder.settings({}), "backbone", BackboneConfig))
    for what, ours, theirs in (
        ("CLIP", clip.fingerprint, agreed.backbone.sha256),
        ("tokenizer", clip.tokenizer_fingerprint, agreed.tokenizer),
    ):
        if ours != theirs:
            raise BackboneError(
                f"the {what} here has the hash {ours}, the server's {theirs}; "
                + (
                    superseded(theirs)
                    or f"set [backbone] in {folder.toml} to {agreed.backbone.name} "
                    f"{agreed.backbone.pretrained}"
                )
            )
    return "ok", f"{clip.name}, sha256 {clip.fingerprint[:16]}..., on {clip.device.type}"


def _images(folder: SiteFolder) -> Outcome:
    from fedprompt.data.load import inspect, own

    config = section(_local(folder), "data", DataConfig)
    images, agreed = own(config), folder.invitation().classes
    if images.train.classes != tuple(map(one_form, agreed)):
        raise ConfigError(_difference(images.train.classes, tuple(map(one_form, agreed))))
    counts = images.train.counts() + images.holdout.counts()
    held = f"{len(images.train)} to train on, {len(images.holdout)} held out"
    by_class = ", ".join(f"{n} {c}" for n, c in zip(agreed[:12], counts[:12], strict=True))
    more = f" and {len(agreed) - 12} classes more" if len(agreed) > 12 else ""
    notes = "; ".join(inspect(config).notes)
    detail = f"{held}: {by_class}{more}"
    return ("note", f"{detail}; {notes}") if notes else ("ok", detail)


def _disk(folder: SiteFolder) -> Outcome:
    free = shutil.disk_usage(folder.path).free / 1e9
    return "ok" if free >= _LEAST_DISK else "note", f"{free:.1f} GB free for logs and features"


def _gpu(_: SiteFolder) -> Outcome:
    import torch

    if torch.cuda.is_available():
        return "ok", torch.cuda.get_device_name(0)
    return "note", "none that torch can use; everything runs on the CPU"


def _egress(folder: SiteFolder) -> Outcome:
    lines, faults = EgressLog(folder.egress).verify()
    if faults:
        return "note", f"{faults[0]}; {len(faults)} such places in {folder.egress.name}"
    return "ok", f"{len(lines)} answers logged" if lines else "nothing has left yet"


def _probe(folder: SiteFolder) -> tls_probe.ProbeResult:
    return tls_probe.probe(folder.node().server, tls_probe.context_of(folder))


def _local(folder: SiteFolder) -> Flat:
    """Return the site's settings with the template that all share."""
    return folder.settings({"data.template": folder.invitation().template})


def _difference(ours: tuple[str, ...], agreed: tuple[str, ...]) -> str:
    """Return how two class lists differ (F13)."""
    strange, lacking = sorted(set(ours) - set(agreed)), sorted(set(agreed) - set(ours))
    differences = [f"only here: {listed(strange)}"] if strange else []
    differences += [f"only at the server: {listed(lacking)}"] if lacking else []
    return (
        "the classes here are not the list that was agreed on: "
        f"{'; '.join(differences) or 'their order'}"
        f"{in_ascii((*strange, *lacking))}; name the folders as classes.json does, or set "
        'data.class_names to a JSON file {"folder": "name in the list"}'
    )


CHECKS: dict[str, Callable[[SiteFolder], Outcome]] = {
    "invitation": _invitation,
    "version": _version,
    "policy": _policy,
    "server": _server,
    "clock": _clock,
    "disk": _disk,
    "GPU": _gpu,
    "backbone": _backbone,
    "images": _images,
    "egress log": _egress,
}


def doctor(folder: FolderArgument, json: JsonOption = False) -> None:
    """Report what is in order and what is not; nothing of this site is sent.

    The exit code is that of the first check that failed.
    """
    findings = run_checks(SiteFolder(folder), quiet=json)
    if json:
        show({"findings": [asdict(f) for f in findings]}, "", as_json=True)
    raise_failed(findings)


def run_checks(folder: SiteFolder, *, quiet: bool = False) -> list[Finding]:
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


def raise_failed(findings: Sequence[Finding]) -> None:
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
