"""``flower-client join``: one file and one command make a site that takes part."""

from pathlib import Path
from typing import Annotated

import typer

from client.deployment import site_folder
from client.deployment.preflight import raise_failed, run_checks
from client.deployment.site_folder import PRIVATE, SiteFolder
from client.deployment.supervisor import take_part
from fedprompt import toml
from fedprompt.data.load import own
from fedprompt.errors import ConfigError
from fedprompt.home import at_home
from fedprompt.protocol import invitation as invitations
from fedprompt.protocol.invitation import Invitation
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.section import section
from fedprompt.storage import write_atomic

_AT_ONCE = 256  # images between two looks at the progress


def join(
    invitation: Annotated[Path, typer.Argument(help="The file that `flower-server enrol` wrote.")],
    data: Annotated[str, typer.Option(help="Folder of images, or any other data.source.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where the site's files go; the site's name by default.")
    ] = None,
    fingerprint: Annotated[
        str, typer.Option(help="Refuse another CA than the one with this SHA-256.")
    ] = "",
    no_start: Annotated[bool, typer.Option("--no-start", help="Check only.")] = False,
) -> None:
    """Check everything, encode the images once, then take part until told to stop.

    Compare the CA's fingerprint that is printed with the one that the server's administrator sees,
    over the telephone. The invitation holds the site's key: remove it when the site has joined. A
    second join into the same folder goes on where the first one ended and overwrites nothing.
    """
    accepted = invitations.read_file(invitation)
    check_fingerprint(accepted, fingerprint)
    site = SiteFolder(folder or Path(accepted.name))
    typer.echo(f"CA      {accepted.fingerprint}, compare it by telephone")
    site_folder.create(site, accepted, _source(data))
    _settle_source(site, _source(data))
    typer.echo(f"folder  {site.path}: review policy.toml, it decides what may leave")
    raise_failed(run_checks(site))
    encode(site)
    if not no_start:
        take_part(site)


def check_fingerprint(invitation: Invitation, expected: str) -> None:
    """Refuse an invitation of another CA than a person expects.

    Raises
    ------
    ConfigError
        Shows both fingerprints.
    """
    bare = expected.replace(":", "").replace(" ", "").lower()
    if bare and bare != invitation.fingerprint:
        raise ConfigError(
            f"the CA of the invitation is {invitation.fingerprint}, expected {bare:.200}; do not "
            "use it, and ask the server's administrator"
        )


def encode(folder: SiteFolder) -> int:
    """Encode the images that the feature store lacks, so that round one need not; return how many.

    Raises
    ------
    FedpromptError
        Images, backbone or store cannot be used.
    """
    import torch

    from client.features.encode import image_features, store_key
    from client.features.feature_store import FeatureStore
    from fedprompt.backbone.load import shared_backbone

    settings = folder.settings({"data.template": folder.invitation().template})
    fit = section(settings, "fit", FitConfig)
    if not fit.cache:
        return 0
    torch.set_num_threads(fit.threads)
    config = section(settings, "data", DataConfig)
    clip, images = shared_backbone(section(settings, "backbone", BackboneConfig)), own(config)
    store = FeatureStore(store_key(clip, white_level=config.white_level))
    todo = [
        part.subset(range(start, min(start + _AT_ONCE, len(part))))
        for part in (images.train, images.holdout)
        for start in range(0, len(part), _AT_ONCE)
    ]
    with typer.progressbar(todo, label="encoding images", width=30) as parts:
        for part in parts:
            image_features(part, clip, store, fit.encode_batch, max_pixels=config.max_pixels)
    count = sum(len(part) for part in todo)
    typer.echo(f"ready   {count} images are encoded")
    return count


def _source(data: str) -> str:
    """Return a path as it is seen from anywhere; another source as it is."""
    path = Path(at_home(data))
    return str(path.resolve()) if path.exists() else data


def _settle_source(folder: SiteFolder, data: str) -> None:
    """Correct the source of a site that has sent nothing yet; refuse other images later.

    Raises
    ------
    ConfigError
        The site took part with other images, or its file was changed by hand.
    """
    known = folder.settings({})["data.source"]
    if known == data:
        return
    text = folder.toml.read_text(encoding="utf-8")
    old = f"source = {toml.dumps(known)}\n"
    if folder.egress.exists() or text.count(old) != 1:
        raise ConfigError(
            f"{folder.toml} names the images {known!r}, --data {data!r}; change the file, or join "
            "in another folder with --folder"
        )
    new = text.replace(old, f"source = {toml.dumps(data)}\n")
    write_atomic(folder.toml, new.encode(), PRIVATE)
    typer.echo(f"images  {data} in place of {known}: nothing has left this site yet")
