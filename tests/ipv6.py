"""Whether this machine speaks IPv6, for tests that need it."""

import socket


def has_ipv6() -> bool:
    """Tell whether this machine has an IPv6 loopback address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
