"""Say what lies where in a site's folder, and which settings are the site's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.deployment.config import NodeConfig
from fedprompt import config as settings
from fedprompt.bundle import Bundle
from fedprompt.config import Flat, Scalar, section
from fedprompt.errors import ConfigError

# The site has the say over its images, its CLIP and its machine; the server over the rest.
OURS = ("backbone.", "data.")
OURS_TOO = frozenset(
    f"{section}.{key}"
    for section, keys in {
        "fit": ("rank", "threads", "encode_batch", "cache"),
        "prompt": ("public", "domain"),
    }.items()
    for key in keys
)
THEIRS = frozenset({"data.template"})  # part of the prompt; the identity binds it
_NODE = "node."


@dataclass(frozen=True)
class SiteFolder:
    """Hold the path of a site's folder, and name what is in it."""

    path: Path

    @property
    def toml(self) -> Path:
        """Return the site's settings."""
        return self.path / "site.toml"

    @property
    def policy(self) -> Path:
        """Return what may leave this site."""
        return self.path / "policy.toml"

    @property
    def egress(self) -> Path:
        """Return the log of everything that left."""
        return self.path / "egress.jsonl"

    @property
    def ca_certificate(self) -> Path:
        """Return the certificate of the CA that the server's must be signed by."""
        return self.path / "ca.crt"

    @property
    def key(self) -> Path:
        """Return this site's private key."""
        return self.path / "node.key"

    @property
    def revocations(self) -> Path:
        """Return the CA's list of certificates it took back, as it was when the site joined."""
        return self.path / "ca.crl"

    @property
    def agreed(self) -> Path:
        """Return what the bundle said, without the key."""
        return self.path / "agreed.json"

    @property
    def secret(self) -> Path:
        """Return what proves the worker to the SuperNode; made anew at each start."""
        return self.path / "flower" / "worker.secret"

    @property
    def node_config(self) -> Path:
        """Return what the SuperNode tells the worker: where this folder is."""
        return self.path / "flower" / "node.toml"

    @property
    def contact(self) -> Path:
        """Return when the server was last heard."""
        return self.path / "contact.json"

    @property
    def lock(self) -> Path:
        """Return what a running client holds, so that there is one of them."""
        return self.path / "client.lock"

    @property
    def classes(self) -> Path:
        """Return the class list that all sites share."""
        return self.path / "classes.json"

    @property
    def local(self) -> Path:
        """Return the folder of prompts of this site's own, which never leave it."""
        return self.path / "local"

    @property
    def flower(self) -> Path:
        """Return the home of Flower's own files."""
        return self.path / "flower"

    @property
    def logs(self) -> Path:
        """Return the folder of the logs."""
        return self.path / "logs"

    def node(self) -> NodeConfig:
        """Return section ``[node]``.

        Raises
        ------
        ConfigError
            This is no site's folder, or a setting is refused.
        """
        return section(self._read(), "node", NodeConfig)

    def bundle(self) -> Bundle:
        """Return what this site got when it was enrolled.

        Raises
        ------
        ConfigError
            The folder is not one that `flower-client join` made.
        """
        try:
            fields = json.loads(self.agreed.read_bytes())
            return Bundle.model_validate_json(
                json.dumps({**fields, "key": self.key.read_text(encoding="utf-8")})
            )
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.agreed} or {self.key.name} is missing or damaged "
                f"({type(error).__name__}); join again with the bundle"
            ) from None

    def class_list(self) -> tuple[str, ...]:
        """Return the class names that were agreed on, in order.

        Raises
        ------
        ConfigError
            The list is missing or damaged.
        """
        try:
            names = json.loads(self.classes.read_bytes())
            return tuple(str(name) for name in names)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.classes} is damaged: {error}; join again") from None

    def settings(self, run: Mapping[str, Scalar]) -> Flat:
        """Return a run's settings where the server has the say, this site's own where it has.

        Raises
        ------
        ConfigError
            A setting of the site is unknown, refused, or not the site's to make.
        """
        own = {k: v for k, v in self._read().items() if not k.startswith(_NODE)}
        if foreign := sorted(key for key in own if not is_own(key)):
            raise ConfigError(
                f"{self.toml}: {foreign[0]} is the server's to set; a site sets backbone.*, "
                f"data.* and {', '.join(sorted(OURS_TOO))}"
            )
        if self.classes.is_file():
            own.setdefault("data.class_names", str(self.classes.resolve()))
        settings.check(own)
        theirs = {key: value for key, value in run.items() if not is_own(key)}
        return settings.defaults() | theirs | own

    def _read(self) -> Flat:
        if not self.toml.is_file():
            raise ConfigError(
                f"{self.path} holds no site.toml; join with `flower-client join BUNDLE`"
            )
        return settings.read(self.toml)


def is_own(key: str) -> bool:
    """Tell whether a setting is the site's to make."""
    return key in OURS_TOO or (key.startswith(OURS) and key not in THEIRS)
