"""Make a deployment folder: settings, classes, certificates, and no site enrolled yet."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedprompt import toml
from fedprompt.data.classes import configured_names
from fedprompt.errors import ConfigError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.protocol import address as addresses
from fedprompt.settings import run_config as settings
from fedprompt.settings.section import Flat, Scalar
from fedprompt.storage import write_atomic
from server.deployment import credentials, sites
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder

MADE = frozenset({"server.output", "server.sites", "data.class_names"})
# key -> (value that stands there, what it means); the order is the file's
_RUN: dict[str, tuple[Scalar, str]] = {
    "prompt.method": ("dip", "dip = low-rank, dip-fixed = DIP as published, coop = free vectors"),
    "prompt.rank": (1, "of the low-rank form; of dip, of what each round adds"),
    "prompt.tokens": (0, "prompt length; 0 = as many as the template's words"),
    "prompt.init": ("", 'words to start from; "" = those before the name in the template'),
    "fit.learning_rate": (0.02, ""),
    "fit.epochs": (1, "at a site, each round"),
    "fit.batch": (32, "images"),
    "server.rounds": (10, ""),
    "server.min_sites": (2, "that must have joined before round one"),
    "server.fraction": (1.0, "share of the joined sites asked each round"),
    "server.quorum": (0.5, "share of the asked sites whose replies must pass"),
    "server.retries": (2, "further tries of a round below quorum"),
    "server.deadline": (600.0, "seconds one exchange with the sites may take"),
    "server.join_deadline": (604_800.0, "seconds to wait for min_sites; a week"),
    "server.strategy": ("fedavg", "fedmedian, fedtrimmedavg, krum, multikrum, bulyan are robust"),
    "server.byzantine": (0, "sites that may be hostile, for those"),
    "server.seed": (0, ""),
    "backbone.name": ("embedded", "embedded, an open_clip name, hf-hub:ID or local-dir:PATH"),
    "backbone.pretrained": ("", "open_clip tag or checkpoint file"),
    "backbone.device": ("auto", "of the server; sites choose their own"),
    "data.template": ("a photo of a {}.", "the prompt's words at the start"),
}
_HEAD = """\
# A deployment of fedprompt; `flower-server start` reads this file. The folder itself says where
# the run, the classes and the certificates lie. All settings: docs/settings.md.
# Once round one is done, what shapes the prompt must stay as it is; deadlines may change.

"""


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
    given = settings.load_flat(path, overrides)
    if taken := sorted(given.keys() & MADE):
        raise ConfigError(
            f"{taken[0]} is made by the deployment folder; give --classes for the classes, and "
            "remove the line"
        )
    return given


def server_toml(address: str, run: Mapping[str, Scalar]) -> str:
    """Return the text of ``server.toml``.

    Parameters
    ----------
    address
        ``host:port`` that sites dial.
    run
        Settings of the run, ``section.key``, that stand in place of what is suggested.
    """
    lines = _deployment(address)
    wanted = {key: (value, note) for key, (value, note) in _RUN.items()}
    wanted |= {key: (value, wanted.get(key, (0, ""))[1]) for key, value in run.items()}
    for name in dict.fromkeys(key.partition(".")[0] for key in wanted):
        lines += ["", f"[{name}]"]
        lines += [
            _line(key.partition(".")[2], value, note)
            for key, (value, note) in wanted.items()
            if key.startswith(f"{name}.")
        ]
    return _HEAD + "\n".join(lines) + "\n"


def _deployment(address: str) -> list[str]:
    host, port = addresses.split(address)
    suggested = DeploymentConfig(address=address)
    free = iter(p for p in range(port + 1, port + 4) if p <= 65535)
    return [
        "[deployment]",
        _line("address", address, "that sites dial; the certificate is for this host"),
        _line("host", addresses.interface(host), "to listen on; :: = all, 0.0.0.0 = all of IPv4"),
        _line("port", port, "for sites; behind a port forwarding it may differ from address"),
        _line("control_port", next(free, 9093), "on loopback: Flower's control API"),
        _line("metrics_port", next(free, 9095), "on loopback: Prometheus; 0 = off"),
        _line("restarts", suggested.restarts, "in a row of a run that makes no progress"),
    ]


def _line(key: str, value: Scalar, note: str) -> str:
    text = f"{key} = {toml.dumps(value)}"
    return f"{text}  # {note}" if note else text
