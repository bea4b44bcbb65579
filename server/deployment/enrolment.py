"""Enrol a site: the private key leaves in the site's invitation and is stored nowhere else."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fedprompt.backbone.load import shared_backbone
from fedprompt.backbone.tags import agreed_preprocessing
from fedprompt.data.classes import configured_names
from fedprompt.errors import ConfigError
from fedprompt.protocol import invitation as invitations
from fedprompt.protocol.invitation import Invitation, SharedBackbone
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.section import section
from fedprompt.storage import write_atomic
from server.deployment import credentials, issuer, sites
from server.deployment.folder import DeploymentFolder

SUFFIX = ".fedprompt"


def enrol(folder: DeploymentFolder, name: str, images: int, output: Path) -> Invitation:
    """Enrol a site and write its invitation.

    Works while the server runs: it follows the list of sites. Should anything fail once the site
    is listed, its key is refused again.

    Parameters
    ----------
    name
        Lower-case letters, digits and hyphens.
    images
        Most examples the site may speak for; 0 = none is agreed.
    output
        The invitation's file; it must not exist.

    Raises
    ------
    ConfigError
        The name is taken, the file exists, or the CA's key is not here.
    BackboneError
        The backbone cannot be loaded, so that it cannot be hashed.
    """
    folder.config()  # a folder that is no deployment says so itself
    sites.check_name(sites.read(folder.path), name)
    if output.exists():
        raise ConfigError(f"{output} exists; give another --output")
    ca_key = credentials.ca_key(folder)
    shared = _shared(folder)
    private, public = issuer.ssh_pair(issuer.new_key())
    site = sites.add(folder.path, name, public, images)
    try:
        made = Invitation.model_validate(
            shared | {"name": name, "number": site.number, "key": private}
        )
        data = invitations.pack(made, ca_key)
        invitations.read(data)  # what the site would refuse is not handed out
        write_atomic(output, data, 0o600)
    except BaseException:
        sites.revoke(folder.path, name)
        raise
    return made


def _shared(folder: DeploymentFolder) -> dict[str, object]:
    """Return the fields that all invitations of a deployment share."""
    config, settings = folder.config(), folder.run_settings()
    backbone = section(settings, "backbone", BackboneConfig)
    clip = shared_backbone(backbone.model_copy(update={"device": "cpu"}))
    return {
        "address": config.address,
        "ca": issuer.pem(credentials.ca_certificate(folder)).decode(),
        "crl": credentials.read(folder.revocations),
        "classes": configured_names(str(settings["data.class_names"])),
        "template": settings["data.template"],
        "method": settings["prompt.method"],
        "backbone": SharedBackbone(
            name=backbone.name,
            pretrained=backbone.pretrained,
            quick_gelu=backbone.quick_gelu,
            preprocess=agreed_preprocessing(backbone),
            sha256=clip.fingerprint,
        ),
        "tokenizer": clip.tokenizer_fingerprint,
        "version": version("fedprompt"),
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
    }
