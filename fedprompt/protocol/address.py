"""Read ``host:port`` of invitations, settings and command lines; listen and probe there."""

import errno
import ipaddress
import re
import socket

from fedprompt.errors import ConfigError

EXAMPLES = ("fed.example.org:9092", "192.0.2.7:9092", "[2001:db8::7]:9092")
IPV4, EVERY = "0.0.0.0", "::"  # noqa: S104 (interfaces: all of IPv4; all of both families)

_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # this machine has no such address
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
    # a zone, as in fe80::1%eth0, means another interface on each machine and is in no certificate
    named = is_ip(bare) and "%" not in bare if ":" in bare else bool(_HOST.fullmatch(bare))
    bracketed = bare != host
    numbered = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not named or not numbered or bracketed != (":" in bare):
        raise ConfigError(
            f"{address!r:.300} is no address; expected host:port, such as {', '.join(EXAMPLES)}"
        )
    return bare, int(port)


def join(host: str, port: int) -> str:
    """Return ``host:port``, as a URL has it: an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Return whether a host is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only, out of reach of others."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


def interface(host: str) -> str:
    """Return the interface to listen on for those who dial ``host``.

    What only this machine can dial is listened on itself. Otherwise it is everything of the family
    that is dialled, and of both families for a name: the host may be an address of a router that
    forwards to this machine.
    """
    if is_loopback(host):
        return host
    return IPV4 if is_ip(host) and ":" not in host else EVERY


def listen(host: str, port: int, backlog: int = 512) -> list[socket.socket]:
    """Listen on each address of an interface: of a name and of ``::`` in both families.

    An address that this machine lacks is left out as long as there is another, so that ``::`` also
    works without IPv6.

    Raises
    ------
    OSError
        There is no such address here, or it is taken.
    """
    doors: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            try:
                doors.append(socket.create_server(address, family=family, backlog=backlog))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
        if absent and not doors:
            raise absent
    except OSError:
        for door in doors:
            door.close()
        raise
    return doors


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Return each address of a host once, with its family."""
    every = is_ip(host) and ipaddress.ip_address(host) == ipaddress.ip_address(EVERY)
    hosts = (EVERY, IPV4) if every else (host,)
    addresses = [
        (family, (str(address[0]), int(address[1])))
        for one in hosts
        for family, _, _, _, address in socket.getaddrinfo(one, port, type=socket.SOCK_STREAM)
    ]
    return list(dict.fromkeys(addresses))


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_answering(port: int) -> bool:
    """Return whether somebody listens on a port of the loopback interface; nobody does on 0."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return bool(port) and probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Return whether a port of the loopback interface can be listened on; 0 cannot."""
    if not port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
