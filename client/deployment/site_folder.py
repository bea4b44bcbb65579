"""Say what lies where in a site's folder, and which settings are the site's own."""

import json
from collections.abc import Mapping
from pathlib import Path

from client.deployment.config import NodeConfig
from fedprompt.errors import ConfigError
from fedprompt.protocol.invitation import Bundle
from fedprompt.settings import run_config as settings
from fedprompt.settings.run_config import section
from fedprompt.settings.section import Flat, Scalar

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


class SiteFolder:
    """Hold the path of a site's folder, and name what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toml = path / "site.toml"  # the site's settings
        self.policy = path / "policy.toml"  # what may leave this site
        self.egress = path / "egress.jsonl"  # log of everything that left
        self.ca_certificate = path / "ca.crt"  # of the CA that must have signed the server's
        self.key = path / "node.key"  # this site's private key
        self.revocations = path / "ca.crl"  # certificates the CA had revoked when the site joined
        self.agreed = path / "agreed.json"  # what the bundle said, without the key
        self.secret = path / "flower" / "worker.secret"  # proves the worker; new at each start
        self.node_config = path / "flower" / "node.toml"  # tells the worker where this folder is
        self.contact = path / "contact.json"  # when the server was last heard
        self.lock = path / "client.lock"  # held by the one running client
        self.classes = path / "classes.json"  # the class list that all sites share
        self.local = path / "local"  # this site's own prompts, which never leave it
        self.flower = path / "flower"  # home of Flower's own files
        self.logs = path / "logs"

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
