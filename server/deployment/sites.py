"""The enrolled sites: ``sites.json``, which commands change and the SuperLink follows."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from fedprompt.errors import ConfigError
from fedprompt.files.file_lock import lock
from fedprompt.identity import canonical_json
from fedprompt.protocol.invitation import SITE_NAME
from fedprompt.storage import write_atomic

NAME = "sites.json"
_LOCK = f"{NAME}.lock"
_NAME = re.compile(SITE_NAME)


@dataclass(frozen=True)
class Enrolled:
    """One enrolled site.

    Attributes
    ----------
    number
        Its place in samples, receipts and records; never given twice.
    name
        For people.
    key
        Its public key, one OpenSSH line.
    images
        Most examples it may claim; 0 = none was agreed: its own count weighs little.
    enrolled
        When, in UTC.
    revoked
        Whether its key is refused.
    """

    number: int
    name: str
    key: str
    images: int
    enrolled: str
    revoked: bool = False


def read(folder: Path) -> list[Enrolled]:
    """Return every site that was ever enrolled, by number.

    Raises
    ------
    ConfigError
        The file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        return _SITES.validate_json(path.read_bytes()).sites
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path} is damaged: {reason}; restore it from a backup") from None


def add(folder: Path, name: str, key: str, images: int) -> Enrolled:
    """Enrol a site under a new number.

    Raises
    ------
    ConfigError
        The name is taken, or is not one that a file can have.
    """
    with lock(folder / _LOCK):  # two commands must not change the list at once
        sites = read(folder)
        check_name(sites, name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        site = Enrolled(len(sites), name, key, images, now)
        _write(folder, [*sites, site])
    return site


def check_name(sites: Iterable[Enrolled], name: str) -> None:
    """Refuse a name that is taken, or that a file cannot have.

    Raises
    ------
    ConfigError
        Says which names are possible.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a site; expected lower-case letters, digits and hyphens, "
            "63 at most, such as st-mary"
        )
    if any(site.name == name and not site.revoked for site in sites):
        raise ConfigError(f"{name} is enrolled already; revoke it first, or choose another name")


def revoke(folder: Path, name: str) -> Enrolled:
    """Refuse a site's key from now on.

    Raises
    ------
    ConfigError
        No such site is enrolled.
    """
    with lock(folder / _LOCK):  # two commands must not change the list at once
        sites = read(folder)
        matching = [site for site in sites if site.name == name and not site.revoked]
        if not matching:
            names = ", ".join(site.name for site in sites if not site.revoked) or "none"
            raise ConfigError(f"no site {name!r} is enrolled; enrolled are: {names}")
        _write(folder, [replace(s, revoked=True) if s in matching else s for s in sites])
    return matching[0]


def _write(folder: Path, sites: list[Enrolled]) -> None:
    write_atomic(folder / NAME, canonical_json({"sites": [asdict(site) for site in sites]}))


@dataclass(frozen=True)
class _File:
    """The content of the file."""

    sites: list[Enrolled]

    def __post_init__(self) -> None:
        if [site.number for site in self.sites] != list(range(len(self.sites))):
            raise ValueError("the sites are not numbered 0, 1, 2 ..., as they were enrolled")


_SITES = TypeAdapter(_File)
