"""Invitations of sites, and the policies that sites write themselves.

An invitation is signed, so an odd first byte asks the harness to sign what follows with the CA's
key: a deployment that was taken over can do that too, and a site must still be told so in one line.
"""

import functools
import json
from typing import Any

from client.deployment.policy import Policy
from fedprompt.errors import PolicyError
from fedprompt.identity import canonical_json
from fedprompt.protocol.invitation import pack, read, seal
from tests.fuzz.scratch import folder
from tests.paperwork import authority, invitation

CAP = 1 << 16
POLICY_CAP = 100_000  # as the parser's own
_POLICY = b"""min_sites = 2
max_norm = 10.0
servers = ["server.test:8443", "[::1]:443"]
methods = ["dip"]
max_message = 1_000
max_day = 0x100
max_epochs = 5
metrics = ["loss"]
"""


def feed(data: bytes) -> None:
    """Read one invitation."""
    found = read(_signed(data[1:]) if data[:1] and data[0] % 2 else data[1:])
    canonical_json({"fingerprint": found.fingerprint})


def seeds() -> list[bytes]:
    """Return an honest invitation, as packed and to be signed, and one field by field."""
    packed = pack(_invitation(), _key())
    fields = json.loads(packed)
    del fields["signature"]
    changes = [{key: value} for key, value in fields.items()] + [{"number": 2**70}]
    return [b"\0" + packed, b"\1{}", *(b"\1" + canonical_json(change) for change in changes)]


def feed_policy(data: bytes) -> None:
    """Read a policy, and ask it about one message and one answer."""
    path = folder("policy") / "policy.toml"
    path.write_bytes(data)
    policy = Policy.read(path)
    settings: dict[str, Any] = {"prompt.method": "dip", "fit.epochs": 3}
    for ask in (
        lambda: policy.admit("server.test:8443", "train", settings, 3),
        lambda: policy.allow_bytes(900, 0),
    ):
        try:
            ask()
        except PolicyError as error:
            canonical_json(str(error))


def policy_seeds() -> list[bytes]:
    """Return a whole policy, an empty one, and rules one by one."""
    return [_POLICY, b"", *_POLICY.splitlines(keepends=True)]


@functools.cache
def _key() -> Any:
    return authority()[0]


@functools.cache
def _invitation() -> Any:
    return invitation()


def _signed(text: bytes) -> bytes:
    """Return a signed invitation whose fields are an honest one's, but for those in ``text``."""
    try:
        changes = json.loads(text)
        return seal({**_invitation().model_dump(mode="json"), **changes}, _key())
    except (ValueError, TypeError, RecursionError):
        return text
