"""Reach the server: whom to trust, which proxy to use, and a probe before anything is sent."""

import base64
import http.client
import socket
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from client.deployment.site_folder import SiteFolder
from fedprompt.errors import ConfigError, LinkError
from fedprompt.processes.flower_environment import HERE
from fedprompt.protocol import address

PATIENCE = 10.0  # seconds for each step of the handshake
_PATH = "/v1/fleet/"  # the only door that a server has for sites; nothing lies right behind it
# OpenSSL's numbers of why a certificate was refused (X509_V_ERR_*)
_REASONS = {
    9: "the server's certificate is not valid yet; compare this machine's clock with the server's",
    10: "the server's certificate has expired; `flower-server renew` at the server replaces it",
    23: "the server's certificate is revoked: whoever answers holds a key that was taken back",
    62: "the server's certificate is for another host name",
    64: "the server's certificate is for another IP address",
}
_UNKNOWN_CA = {2, 18, 19, 20, 21}
_PLAINTEXT = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE"}
_OLD = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"}


def tls_context(ca: Path, crl: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts this CA only, and honours its revocations; TLS 1.2 or newer.

    Raises
    ------
    ConfigError
        A file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, ca)
    if crl and crl.exists():
        _load(context, crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def context_of(folder: SiteFolder) -> ssl.SSLContext | None:
    """Return the TLS context of a site; None if its settings allow plaintext."""
    if folder.node().insecure:
        return None
    return tls_context(folder.ca_certificate, folder.revocations)


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; join again with the invitation"
        ) from None


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy, and the variable that names it.

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


def find_proxy(host: str) -> Proxy | None:
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


def describe_proxy(host: str) -> str:
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
    """Return whether ``no_proxy`` lists a host: itself, a domain above it, or ``*``."""
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


@dataclass(frozen=True)
class ProbeResult:
    """The result of a handshake.

    Attributes
    ----------
    expires
        When the server's certificate ends; None without TLS.
    ahead
        Seconds that this machine's clock is ahead of the server's; None if it did not say.
    """

    expires: datetime | None
    ahead: float | None


def probe(server: str, context: ssl.SSLContext | None, patience: float = PATIENCE) -> ProbeResult:
    """Complete a TLS handshake with the server, and ask only for its time.

    Parameters
    ----------
    server
        ``host:port``; reached through the proxy that the environment names, as Flower does.
    context
        The TLS context; None speaks plaintext.
    patience
        Seconds for each step.

    Raises
    ------
    LinkError
        Says why: nobody listens, wrong certificate, no TLS, no answer in time.
    """
    host, port = address.split(server)
    proxy = find_proxy(host) if context else None
    connection = _connection(host, port, proxy, patience)
    try:
        _dial(connection, proxy, patience)
        if context:
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        expires = _expiry(connection.sock)
        before = time.time()
        connection.request("HEAD", _PATH)
        response = connection.getresponse()
        date, now = response.getheader("Date"), (before + time.time()) / 2
        server_time = (
            parsedate_to_datetime(date).timestamp() + 0.5 if date else None
        )  # cut to seconds
        return ProbeResult(expires, None if server_time is None else now - server_time)
    except (OSError, http.client.HTTPException, ValueError) as error:
        clear = "" if context else " (insecure = true, so this site speaks plaintext, not TLS)"
        way = f" (through {proxy})" if proxy else clear
        raise LinkError(f"{server}: {explain(error, patience)}{way}") from None
    except _ProxyError as error:
        raise LinkError(
            f"{server}: {proxy}, through which it is dialled, does not lead there: {error}. "
            f"Correct the variable, or put {host} into no_proxy to dial the server without a proxy"
        ) from None
    finally:
        connection.close()


def explain(error: Exception, patience: float = PATIENCE) -> str:
    """Return why a handshake failed and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_CA:
            return (
                "the server's certificate is not signed by this deployment's CA: another server "
                "answers, or somebody stands in between"
            )
        return _REASONS.get(
            error.verify_code, f"its certificate is refused: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLError) and error.reason in _PLAINTEXT:
        return "it does not speak TLS; nothing is sent in the clear. Check address and port"
    if isinstance(error, ssl.SSLError) and error.reason in _OLD:
        return "it does not speak TLS 1.2 or newer; nothing is sent over an older one"
    if isinstance(error, http.client.BadStatusLine):
        return "it does not speak HTTP; check address and port"
    if isinstance(error, TimeoutError):
        return f"no answer within {patience:g} s; a firewall may drop the packets"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check that the server runs, and the port"
    if isinstance(error, socket.gaierror):
        return (
            f"the host's name is not known here ({error.strerror}); ask your network administrator"
        )
    if isinstance(error, ConnectionResetError | ssl.SSLEOFError | http.client.HTTPException):
        return "it closed the connection; something that is no flower-server may listen there"
    return " ".join(str(error).split())[:200] or type(error).__name__


class _ProxyError(Exception):
    """A proxy that does not lead to the server."""


def _connection(
    host: str, port: int, proxy: Proxy | None, patience: float
) -> http.client.HTTPConnection:
    if proxy is None:
        return http.client.HTTPConnection(host, port, timeout=patience)
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=patience)
    connection.set_tunnel(f"[{host}]" if ":" in host else host, port, proxy.headers)
    return connection


def _dial(connection: http.client.HTTPConnection, proxy: Proxy | None, patience: float) -> None:
    """Connect to the server, or to the proxy and by it to the server."""
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        if proxy is None:
            raise
        raise _ProxyError(explain(error, patience)) from None


def _expiry(connected: socket.socket | None) -> datetime | None:
    certificate = connected.getpeercert() if isinstance(connected, ssl.SSLSocket) else None
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
