"""Say at once that the Hugging Face hub cannot be reached; its client tries for half a minute."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 10.0  # seconds for a connection


def unreachable() -> str:
    """Return why no connection to the hub can be made; empty if one can, or nobody has to.

    A proxy is asked by the hub's own client; where that is told to stay offline nothing is asked.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return ""
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached ({error})"
    return ""


@contextmanager
def within_reach() -> Iterator[str]:
    """Let the hub's client use what was downloaded before, and ask nobody, without internet.

    Yields why the hub cannot be reached; empty if it can.
    """
    from huggingface_hub import constants

    why, before = unreachable(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(why)
    try:
        yield why
    finally:
        constants.HF_HUB_OFFLINE = before
