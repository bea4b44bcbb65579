"""Read ``host:port``, as it stands in bundles, settings and on command lines."""

import ipaddress
import re

from fedprompt.errors import ConfigError

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?")


def split(address: str) -> tuple[str, int]:
    """Return the host and the port of an address; an IPv6 host stands in brackets.

    Raises
    ------
    ConfigError
        It is no host and port.
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    named = is_ip(bare) if ":" in bare else bool(_HOST.fullmatch(bare))
    bracketed = bare != host
    numbered = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not named or not numbered or bracketed != (":" in bare):
        raise ConfigError(
            f"{address!r:.300} is no address; expected host:port, such as "
            "fed.example.org:9092, 192.0.2.7:9092 or [2001:db8::7]:9092"
        )
    return bare, int(port)


def is_ip(host: str) -> bool:
    """Tell whether a host is given by its number, not by its name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine and nobody else can reach it."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)
