"""F16, F17: real handshakes on loopback, one server a fault."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from client.deployment import link, tls
from client.deployment.link import Greeting, greet
from fedprompt.errors import ConfigError, LinkError
from server.deployment import certificates

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Silent(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Handshakes that the other side ends are what is tested."""


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Silent)
    if context:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path) -> Path:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    return tmp_path / "ca.crt"


def server_side(ca: trustme.CA, *names: str, **settings: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("127.0.0.1",)), **settings).configure_cert(context)
    return context


def test_a_good_server_tells_when_its_certificate_ends_and_its_time(
    ca: trustme.CA, trusted: Path
) -> None:
    with serving(server_side(ca, not_after=NOW + 20 * DAY)) as address:
        found = greet(address, tls.context(trusted))
    assert isinstance(found, Greeting)
    assert found.expires == (NOW + 20 * DAY).replace(microsecond=0)
    assert abs(found.ahead) < 5


Make = Callable[[trustme.CA], ssl.SSLContext | None]
FAULTS: dict[str, tuple[Make, str]] = {
    "expired": (
        lambda ca: server_side(ca, not_before=NOW - 9 * DAY, not_after=NOW - DAY),
        "has expired",
    ),
    "not yet valid": (lambda ca: server_side(ca, not_before=NOW + DAY), "not valid yet.*clock"),
    "wrong host": (lambda ca: server_side(ca, "fed.example.org"), "for another IP address"),
    "unknown CA": (lambda _: server_side(trustme.CA()), "not signed by this deployment's CA"),
    "plaintext": (lambda _: None, "does not speak TLS; nothing is sent in the clear"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_F16_F17_a_server_that_cannot_be_trusted_is_refused_with_the_reason(
    ca: trustme.CA, trusted: Path, fault: str
) -> None:
    make, told = FAULTS[fault]
    with serving(make(ca)) as address, pytest.raises(LinkError, match=told) as caught:
        greet(address, tls.context(trusted))
    assert caught.value.exit_code == 15
    assert address in str(caught.value)


def test_F16_a_wrong_host_name_is_told_from_a_wrong_address(ca: trustme.CA, trusted: Path) -> None:
    with serving(server_side(ca, "fed.example.org")) as address:
        port = address.rpartition(":")[2]
        with pytest.raises(LinkError, match="for another host name"):
            greet(f"localhost:{port}", tls.context(trusted))


def test_F16_a_revoked_certificate_is_refused_and_another_is_not(tmp_path: Path) -> None:
    key, ca_key = certificates.new_key(), certificates.new_key()
    authority = certificates.authority(ca_key, "a test")
    made = certificates.server_certificate(key, authority, ca_key, ["127.0.0.1"])
    (tmp_path / "ca.crt").write_bytes(certificates.pem(authority))
    (tmp_path / "server.crt").write_bytes(certificates.pem(made))
    (tmp_path / "server.key").write_bytes(certificates.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    crl = tmp_path / "ca.crl"
    with serving(context) as address:
        for serials in ([], [(made.serial_number, NOW)]):
            found = certificates.revocation_list(authority, ca_key, serials)
            crl.write_bytes(certificates.pem(found))
            trust = tls.context(tmp_path / "ca.crt", crl)
            if not serials:
                assert greet(address, trust).expires
                continue
            with pytest.raises(LinkError, match="is revoked"):
                greet(address, trust)


def test_F17_an_old_tls_is_refused(ca: trustme.CA, trusted: Path) -> None:
    context = tls.context(trusted)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_nobody_listens(trusted: Path) -> None:
    with serving(None) as address:
        pass
    with pytest.raises(LinkError, match="nobody listens there"):
        greet(address, tls.context(trusted))


def test_a_name_that_nobody_knows(trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LinkError, match="name is not known"):
        greet("no-such-host.invalid:9092", tls.context(trusted))


def test_a_server_that_says_nothing_is_not_waited_for(trusted: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"no answer within 0\.2 s"):
            greet(address, tls.context(trusted), patience=0.2)


def test_a_server_that_hangs_up(trusted: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            rude.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(LinkError, match="closed the connection"):
            greet(f"127.0.0.1:{rude.getsockname()[1]}", tls.context(trusted))
        thread.join()


def test_a_broken_certificate_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.crt", tmp_path / "bad.crt"):
        (tmp_path / "bad.crt").write_text("no certificate")
        with pytest.raises(ConfigError, match=path.name):
            tls.context(path)


def test_the_proxy_of_the_environment_is_used(
    trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "proxy_bypass", lambda _: False)
    monkeypatch.setattr(link, "getproxies", lambda: {"https": "http://proxy.example.org:3128"})
    made = link._connection("fed.example.org:9092", tls.context(trusted), 1.0)
    assert (made.host, made.port) == ("proxy.example.org", 3128)
    assert (made._tunnel_host, made._tunnel_port) == ("fed.example.org", 9092)
