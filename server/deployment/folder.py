"""The files of a deployment folder, and the settings in it."""

from pathlib import Path

from fedprompt.errors import ConfigError
from fedprompt.settings import run_config as settings
from fedprompt.settings.section import Flat, section
from server.deployment.config import DeploymentConfig

_SECTION = "deployment."
_DEFAULTS: Flat = {"server.min_sites": 2}  # for real sites; a simulation has another default


class DeploymentFolder:
    """The paths and settings of a deployment folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toml = path / "server.toml"  # the settings of the server and the run
        self.ca_key = path / "ca.key"  # signs certificates and invitations; may be kept elsewhere
        self.ca_certificate = path / "ca.crt"  # the certificate that sites trust
        self.revocations = path / "ca.crl"  # certificates that the CA revoked
        self.key = path / "server.key"  # the server's TLS key
        self.certificate = path / "server.crt"  # the server's TLS certificate
        self.database = path / "superlink.db"  # the SuperLink's state
        self.classes = path / "classes.json"  # the class list that every invitation carries
        self.nodes = path / "nodes.json"  # who is enrolled and online; the SuperLink keeps it
        self.lock = path / "server.lock"  # held by every process of a running server
        self.pipe = path / "log.pipe"  # carries the ServerApp's log lines
        self.run = path / "run"  # the run's folder: checkpoints, record, artefact
        self.flower = path / "flower"  # home of Flower's own files
        self.logs = path / "logs"

    def config(self) -> DeploymentConfig:
        """Return section ``[deployment]``.

        Raises
        ------
        ConfigError
            This is no deployment folder, or a setting is refused.
        """
        return section(self._read(), "deployment", DeploymentConfig)

    def run_settings(self) -> Flat:
        """Return every setting of the run, checked by its owner.

        Raises
        ------
        ConfigError
            As `config`, or a setting is one that the folder makes.
        """
        given = self._read()
        run = {k: v for k, v in given.items() if not k.startswith(_SECTION)}
        fixed = self._fixed(insecure=bool(given.get("deployment.insecure", False)))
        if taken := sorted(run.keys() & fixed.keys()):
            raise ConfigError(
                f"{self.toml} sets {taken[0]}, which is always {fixed[taken[0]]!r} in this folder; "
                "remove the line"
            )
        settings.check(run | fixed)
        return settings.defaults() | _DEFAULTS | run | fixed

    def _fixed(self, *, insecure: bool) -> Flat:
        """Return the run's paths; without keys nodes cannot be told apart, so no list of sites."""
        base = self.path.resolve()
        return {
            "server.output": str(base / self.run.name),
            "server.sites": "" if insecure else str(base / self.nodes.name),
            "data.class_names": str(base / self.classes.name),
        }

    def _read(self) -> Flat:
        if not self.toml.is_file():
            raise ConfigError(
                f"{self.path} holds no server.toml; make a deployment with `flower-server init`"
            )
        return settings.read(self.toml)
