"""Find the HTTP proxy that leads to a server, by the rules of Flower's own client (httpx)."""

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from fedprompt.errors import LinkError
from fedprompt.processes.flower_environment import HERE
from fedprompt.protocol import address


@dataclass(frozen=True)
class Proxy:
    """Hold where a proxy listens and who names it.

    Attributes
    ----------
    host, port
        To dial.
    variable
        Of the environment, such as ``https_proxy``.
    headers
        Of the CONNECT request: the name and password that its URL holds.
    """

    host: str
    port: int
    variable: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Return who it is for messages, without its password."""
        return f"the proxy http://{address.join(self.host, self.port)} ({self.variable})"


def proxy_of(host: str) -> Proxy | None:
    """Return the proxy through which a host is reached by HTTPS; None = it is dialled itself.

    Raises
    ------
    LinkError
        The environment names a proxy that cannot be used.
    """
    variable, url = _named()
    if not url or _is_direct(host):
        return None
    parts = urlsplit(url)
    try:
        named, port = parts.hostname, parts.port or 80
    except ValueError:
        named, port = None, 0
    if parts.scheme != "http" or not named:
        raise LinkError(
            f"{variable} names the proxy {_shown(url)}; expected http://HOST:PORT. Correct it, or "
            f"put {host} into no_proxy to dial the server without a proxy"
        )
    return Proxy(named, port, variable, _authorisation(parts.username, parts.password))


def described(host: str) -> str:
    """Return what the environment's proxy is to a host, for messages; empty if there is none."""
    variable, url = _named()
    if not url:
        return ""
    way = "directly, without" if _is_direct(host) else "through"
    return f"{way} the proxy {_shown(url)} ({variable})"


def _named() -> tuple[str, str]:
    """Return the variable that names a proxy for HTTPS, and the proxy's URL; empty = none does."""
    known = getproxies()
    kind = next((kind for kind in ("https", "all") if known.get(kind)), "")
    url = known.get(kind, "")
    return f"{kind}_proxy", url if "://" in url or not url else f"http://{url}"


def _is_direct(host: str) -> bool:
    """Tell whether ``no_proxy`` lists a host: itself, a domain above it, or ``*``."""
    listed = [name.strip().lower() for name in getproxies().get("no", "").split(",")]
    above = [name if name.startswith(".") else f".{name}" for name in listed if name]
    return host in HERE or bool({"*", host.lower()} & {*listed}) or host.lower().endswith((*above,))


def _shown(url: str) -> str:
    """Return a URL without name and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"[:200]


def _authorisation(name: str | None, password: str | None) -> dict[str, str]:
    if name is None:
        return {}
    secret = f"{unquote(name)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(secret).decode()}"}
