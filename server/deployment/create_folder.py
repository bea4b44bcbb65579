"""Make a deployment folder: settings, classes, certificates, and nobody enrolled yet."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedprompt.data.classes import configured_names
from fedprompt.errors import ConfigError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.protocol import address as addresses
from fedprompt.settings import run_config as settings
from fedprompt.settings.section import Flat, Scalar
from fedprompt.storage import write_atomic
from server.deployment import credentials, sites
from server.deployment.folder import DeploymentFolder
from server.deployment.template import server_toml


def create(
    folder: DeploymentFolder, address: str, classes: str, run: Mapping[str, Scalar], days: int
) -> tuple[str, ...]:
    """Fill a new folder and return the class names.

    Parameters
    ----------
    address
        ``host:port`` that sites will dial.
    classes
        Names with commas between, or a ``.txt`` or ``.json`` file.
    run
        Settings of the run that differ from the defaults.
    days
        How long the server's certificate is good.

    Raises
    ------
    ConfigError
        There is a deployment already, or an option is refused; nothing was made then.
    """
    _check_vacant(folder.path)
    host, _ = addresses.split(address)
    names = configured_names(classes)
    text = server_toml(address, run)
    existed = folder.path.exists()
    try:
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.path.chmod(0o700)
        _fill(folder, text, names, host, days)
    except BaseException as error:
        if not existed:  # half a deployment would be refused the next time
            shutil.rmtree(folder.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise StorageError(
                f"{folder.path} cannot be made: {error.strerror}; give another folder"
            ) from error
        raise
    return names


def _fill(folder: DeploymentFolder, text: str, names: Sequence[str], host: str, days: int) -> None:
    credentials.create(folder, host, days)
    write_atomic(folder.classes, canonical_json(list(names)))
    write_atomic(folder.path / sites.NAME, canonical_json({"sites": []}))
    write_atomic(folder.toml, text.encode())
    folder.config()  # what was written is what is read
    folder.run_settings()


def _check_vacant(path: Path) -> None:
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ConfigError(
            f"{path} is not empty; give a new folder. A deployment that is there is run with "
            f"`flower-server start {path}`"
        )


def run_of(path: Path | None, overrides: Sequence[str]) -> Flat:
    """Return the settings of a run from a file and overrides, without those a folder makes.

    Raises
    ------
    ConfigError
        A setting is unknown, refused, or one of those the folder makes.
    """
    given = settings.load(path, overrides)
    if taken := sorted(given.keys() & MADE):
        raise ConfigError(
            f"{taken[0]} is made by the deployment folder; give --classes for the classes, and "
            "remove the line"
        )
    return given


MADE = frozenset({"server.output", "server.sites", "data.class_names"})
