"""A site's folder: its files, how it is made from an invitation, and the settings in it."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from fedprompt import toml
from fedprompt.errors import ConfigError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.prompts.methods import applicable
from fedprompt.protocol import address
from fedprompt.protocol.invitation import Invitation
from fedprompt.settings import run_config as settings
from fedprompt.settings.section import Flat, Scalar, Section, section
from fedprompt.storage import write_atomic

PRIVATE = 0o600  # mode of every file in the folder

# A site decides on its images, its CLIP and its machine; the server on the rest.
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


class NodeConfig(Section):
    """Section ``[node]`` of ``site.toml``, written from the invitation."""

    name: str = ""
    number: int = Field(0, ge=0)  # this site's place in records; the server checks it by the key
    server: str = "127.0.0.1:9092"  # host:port of the server
    poll: float = Field(
        0.5, ge=0.01, le=60
    )  # seconds between two requests of the worker for a task
    patience: float = Field(86_400, ge=0)  # seconds of refusals until the site gives up
    task_deadline: float = Field(3600, ge=1)  # seconds of one task until the worker is restarted
    insecure: bool = False  # plaintext and no key; on loopback only, for tests

    @field_validator("server")
    @classmethod
    def _is_an_address(cls, server: str) -> str:
        try:
            address.split(server)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return server

    @model_validator(mode="after")
    def _plaintext_stays_on_this_machine(self) -> "NodeConfig":
        if self.insecure and not address.is_loopback(address.split(self.server)[0]):
            raise ValueError(
                f"insecure = true with server = {self.server}: plaintext is allowed on loopback "
                "only; set insecure = false"
            )
        return self


class SiteFolder:
    """The paths and settings of a site's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toml = path / "site.toml"  # the site's settings
        self.policy = path / "policy.toml"  # what may leave this site
        self.egress = path / "egress.jsonl"  # log of everything that left
        self.ca_certificate = path / "ca.crt"  # of the CA that must have signed the server's
        self.key = path / "node.key"  # this site's private key
        self.revocations = path / "ca.crl"  # certificates the CA had revoked when the site joined
        self.agreed = path / "agreed.json"  # what the invitation said, without the key
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

    def invitation(self) -> Invitation:
        """Return the invitation that the site joined with.

        Raises
        ------
        ConfigError
            The folder is not one that `flower-client join` made.
        """
        try:
            fields = json.loads(self.agreed.read_bytes())
            return Invitation.model_validate_json(
                json.dumps({**fields, "key": self.key.read_text(encoding="utf-8")})
            )
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.agreed} or {self.key.name} is missing or damaged "
                f"({type(error).__name__}); join again with the invitation"
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
        """Return a run's settings, overridden by the site's where those are the site's to make.

        Raises
        ------
        ConfigError
            A setting of the site is unknown, refused, or not the site's to make.
        """
        site_settings = {k: v for k, v in self._read().items() if not k.startswith(_NODE)}
        if foreign := sorted(key for key in site_settings if not is_own(key)):
            raise ConfigError(
                f"{self.toml}: {foreign[0]} is the server's to set; a site sets backbone.*, "
                f"data.* and {', '.join(sorted(OURS_TOO))}"
            )
        if self.classes.is_file():
            site_settings.setdefault("data.class_names", str(self.classes.resolve()))
        settings.check(site_settings)
        run_settings = {key: value for key, value in run.items() if not is_own(key)}
        return applicable(settings.defaults() | run_settings | site_settings)

    def _read(self) -> Flat:
        if not self.toml.is_file():
            raise ConfigError(
                f"{self.path} holds no site.toml; join with `flower-client join INVITATION`"
            )
        return settings.read(self.toml)


def is_own(key: str) -> bool:
    """Return whether a setting is the site's to make."""
    return key in OURS_TOO or (key.startswith(OURS) and key not in THEIRS)


def create(folder: SiteFolder, invitation: Invitation, data: str) -> None:
    """Write the files that the folder lacks; existing files stay as they are.

    Parameters
    ----------
    folder
        The site's.
    invitation
        Its identity, the CA it trusts, and what all sites share.
    data
        ``data.source``: where its images are.

    Raises
    ------
    ConfigError
        The folder is another site's, or of another deployment: its key is not overwritten.
    StorageError
        The folder cannot be written.
    """
    check_same(folder, invitation)
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.path.chmod(0o700)
    except OSError as error:
        raise StorageError(f"{folder.path} cannot be made: {error.strerror}") from None
    contents = {
        folder.key: invitation.key,
        folder.ca_certificate: invitation.ca,
        folder.revocations: invitation.crl,
        folder.classes: json.dumps(list(invitation.classes), ensure_ascii=False, indent=1) + "\n",
        folder.agreed: canonical_json(invitation.model_dump(mode="json", exclude={"key"})).decode(),
        folder.policy: policy_toml(invitation),
        folder.toml: site_toml(invitation, data),
    }
    for path, text in contents.items():
        if not path.exists():
            write_atomic(path, text.encode(), PRIVATE)


def check_same(folder: SiteFolder, invitation: Invitation) -> None:
    """Refuse an invitation into a folder that holds another key or trusts another CA.

    Raises
    ------
    ConfigError
        Says which.
    """
    for path, text, what in (
        (folder.key, invitation.key, "another site's key"),
        (folder.ca_certificate, invitation.ca, "the certificate of another deployment"),
    ):
        if path.exists() and _read_text(path) != text:
            raise ConfigError(
                f"{path} holds {what}; nothing was changed. Join in another folder with --folder, "
                f"or move {folder.path} away"
            )


def policy_toml(invitation: Invitation) -> str:
    """Return the text of a policy that lets a site take part, with comments."""
    return _POLICY.format(
        server=toml.dumps(invitation.address), method=toml.dumps(invitation.method)
    )


def site_toml(invitation: Invitation, data: str) -> str:
    """Return the text of a site's settings, with comments."""
    return _SITE.format(
        name=toml.dumps(invitation.name),
        number=invitation.number,
        server=toml.dumps(invitation.address),
        backbone=toml.dumps(invitation.backbone.name),
        pretrained=toml.dumps(invitation.backbone.pretrained),
        quick_gelu=toml.dumps(invitation.backbone.quick_gelu),
        preprocess=toml.dumps(invitation.backbone.preprocess),
        sha256=invitation.backbone.sha256,
        data=toml.dumps(data),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} could not be read: {error}; give another --folder") from None


_POLICY = """\
# What may leave this site. The server cannot change or override anything here.
# It is read at every message: a change counts from the next one on. A rule that you remove has the
# value that stands here. A message that a rule forbids is answered by an error that names the rule.
# Everything that left is listed by `flower-client egress FOLDER`.

# Least number of sites in a round. With one other site only, each could work out the other's
# update from the merged prompt. The number is the claim of the server: no site can count others.
min_sites = 2

# true: this site takes part in runs under secure aggregation only. Its updates leave masked, and
# the server learns their sum with those of others; see the limits in docs/privacy.md.
secure_aggregation_only = false

# Largest L2 norm of this site's update in the dense prompt; a longer one is shortened to it. It
# bounds what one round can tell of this site. 0 = any.
max_norm = 10.0

# Servers that this site may talk to, host:port.
servers = [{server}]

# Prompts that may be tuned here, as `fedprompt methods` names them.
methods = [{method}]

# Bytes of one answer, and of all answers of a day (UTC), at most.
max_message = 1_000_000
max_day = 200_000_000

# Passes over the images that one round may ask for.
max_epochs = 50

# Least noise (prompt.start_noise) on centres of this site's patch tokens, which a run of method spt
# may ask for before its first round. 0 = they do not leave. See "What a self-prompt starts from" in
# docs/privacy.md.
min_start_noise = 0.0

# Numbers that may leave beside the prompt.
#   num-examples  how many images; without it this site counts as 1, and takes part only in runs
#                 that weigh all sites alike (server.weighting = uniform)
#   loss          mean training loss, and loss on held-out images
#   correct       how many held-out images were classified correctly
# Without loss or correct this site abstains from evaluation.
metrics = ["num-examples", "loss", "correct"]
"""

_SITE = """\
# Settings of this site; the server has no say over anything in this file.

[node]
name = {name}
number = {number}
server = {server} # must stand in policy.toml, too
# poll = 0.5 # seconds between two looks for a task
# patience = 86400 # seconds of nothing but refusals until the site gives up
# task_deadline = 3600 # seconds of one task until the worker is started anew (a dead drive)

# The CLIP that all sites share. It may lie elsewhere here (pretrained = "/path/to/file"); its hash
# must be {sha256}
[backbone]
name = {backbone}
pretrained = {pretrained}
quick_gelu = {quick_gelu}
preprocess = {preprocess}
device = "auto" # cpu | cuda | auto

# This site's images. The class list is classes.json: names must be those, in that order. If your
# folders are called otherwise, set class_names to a JSON file {{"folder": "name in the list"}}.
[data]
source = {data}
test_share = 0.0 # of a source without a test split of its own, kept out altogether
holdout = 0.2 # share of the images that are not trained on, for evaluation here

[fit]
threads = 1 # CPU threads
encode_batch = 64 # images encoded at a time
"""
