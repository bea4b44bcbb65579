"""Say what lies where in a deployment folder, and read its one TOML file."""

from dataclasses import dataclass
from pathlib import Path

from fedprompt import config as settings
from fedprompt.config import Flat, section
from fedprompt.errors import ConfigError
from server.deployment.config import DeploymentConfig

_SECTION = "deployment."
_MILD: Flat = {"server.min_sites": 2}  # a default for real sites, whatever a simulation has


@dataclass(frozen=True)
class DeploymentFolder:
    """Hold the path of a deployment folder, and name what is in it."""

    path: Path

    @property
    def toml(self) -> Path:
        """Return the settings of the server and the run."""
        return self.path / "server.toml"

    @property
    def ca_key(self) -> Path:
        """Return the key that signs certificates and bundles; it may be kept elsewhere."""
        return self.path / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """Return the certificate that sites trust."""
        return self.path / "ca.crt"

    @property
    def revocations(self) -> Path:
        """Return the CA's list of certificates that are void."""
        return self.path / "ca.crl"

    @property
    def key(self) -> Path:
        """Return the server's TLS key."""
        return self.path / "server.key"

    @property
    def certificate(self) -> Path:
        """Return the server's TLS certificate."""
        return self.path / "server.crt"

    @property
    def database(self) -> Path:
        """Return the SuperLink's state."""
        return self.path / "superlink.db"

    @property
    def classes(self) -> Path:
        """Return the class list, one JSON file that every bundle carries."""
        return self.path / "classes.json"

    @property
    def nodes(self) -> Path:
        """Return the list of who is enrolled and online, which the SuperLink keeps."""
        return self.path / "nodes.json"

    @property
    def lock(self) -> Path:
        """Return the file that every process of a running server holds; it names the first."""
        return self.path / "server.lock"

    @property
    def pipe(self) -> Path:
        """Return the named pipe through which the ServerApp's log lines come."""
        return self.path / "log.pipe"

    @property
    def run(self) -> Path:
        """Return the run's folder: checkpoints, record, artefact."""
        return self.path / "run"

    @property
    def flower(self) -> Path:
        """Return the home of Flower's own files."""
        return self.path / "flower"

    @property
    def logs(self) -> Path:
        """Return the folder of the logs."""
        return self.path / "logs"

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
        own = {k: v for k, v in given.items() if not k.startswith(_SECTION)}
        ours = self._fixed(insecure=bool(given.get("deployment.insecure", False)))
        if taken := sorted(own.keys() & ours.keys()):
            raise ConfigError(
                f"{self.toml} sets {taken[0]}, which is always {ours[taken[0]]!r} in this folder; "
                "remove the line"
            )
        settings.check(own | ours)
        return settings.defaults() | _MILD | own | ours

    def _fixed(self, *, insecure: bool) -> Flat:
        """Return what lies where, for the run; without keys nobody can tell nodes apart."""
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
