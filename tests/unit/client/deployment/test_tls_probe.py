"""F16, F17: TLS contexts, and real handshakes on loopback, one server a fault."""

import datetime as dt
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import trustme

from client.deployment.tls_probe import ProbeResult, describe_proxy, find_proxy, probe, tls_context
from fedprompt.errors import ConfigError, LinkError
from fedprompt.processes.flower_environment import variables
from fedprompt.protocol.address import join
from server.deployment import issuer

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
        found = probe(address, tls_context(trusted))
    assert isinstance(found, ProbeResult)
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
        probe(address, tls_context(trusted))
    assert caught.value.exit_code == 15
    assert address in str(caught.value)


def test_F16_a_wrong_host_name_is_told_from_a_wrong_address(ca: trustme.CA, trusted: Path) -> None:
    with serving(server_side(ca, "fed.example.org")) as address:
        port = address.rpartition(":")[2]
        with pytest.raises(LinkError, match="for another host name"):
            probe(f"localhost:{port}", tls_context(trusted))


def test_F16_a_revoked_certificate_is_refused_and_another_is_not(tmp_path: Path) -> None:
    key, ca_key = issuer.new_key(), issuer.new_key()
    authority = issuer.authority(ca_key, "a test")
    made = issuer.server_certificate(key, authority, ca_key, ["127.0.0.1"])
    (tmp_path / "ca.crt").write_bytes(issuer.pem(authority))
    (tmp_path / "server.crt").write_bytes(issuer.pem(made))
    (tmp_path / "server.key").write_bytes(issuer.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    crl = tmp_path / "ca.crl"
    with serving(context) as address:
        for serials in ([], [(made.serial_number, NOW)]):
            found = issuer.revocation_list(authority, ca_key, serials)
            crl.write_bytes(issuer.pem(found))
            trust = tls_context(tmp_path / "ca.crt", crl)
            if not serials:
                assert probe(address, trust).expires
                continue
            with pytest.raises(LinkError, match="is revoked"):
                probe(address, trust)


def test_F17_an_old_tls_is_refused(ca: trustme.CA, trusted: Path) -> None:
    context = tls_context(trusted)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_nobody_listens(trusted: Path) -> None:
    with serving(None) as address:
        pass
    with pytest.raises(LinkError, match="nothing listens there"):
        probe(address, tls_context(trusted))


def test_a_name_that_nobody_knows(trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LinkError, match="name is not known"):
        probe("no-such-host.invalid:9092", tls_context(trusted))


def test_a_server_that_says_nothing_is_not_waited_for(trusted: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"no answer within 0\.2 s"):
            probe(address, tls_context(trusted), patience=0.2)


def test_a_server_that_hangs_up(trusted: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            rude.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(LinkError, match="closed the connection"):
            probe(f"127.0.0.1:{rude.getsockname()[1]}", tls_context(trusted))
        thread.join()


def test_a_broken_certificate_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.crt", tmp_path / "bad.crt"):
        (tmp_path / "bad.crt").write_text("no certificate")
        with pytest.raises(ConfigError, match=path.name):
            tls_context(path)


class Carrier(BaseHTTPRequestHandler):
    """Answer CONNECT: carry the bytes to the server, whatever host was asked for."""

    target = ("127.0.0.1", 0)
    asked: ClassVar[list[tuple[str, str | None]]] = []
    refusal = 0

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers["Proxy-Authorization"]))
        if self.refusal:
            self.send_error(self.refusal)
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(self.target, 30) as far:
            back = threading.Thread(target=carry, args=(far, self.connection))
            back.start()
            carry(self.connection, far)
            back.join()
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Carrier]]:
    made = type("Made", (Carrier,), {"asked": []})
    server = Server(("127.0.0.1", 0), made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("host", ["fed.example.org", "2001:db8::7", "127.0.0.2"])
def test_the_proxy_of_the_environment_is_used(
    ca: trustme.CA, trusted: Path, carrier: type[Carrier], host: str
) -> None:
    with serving(server_side(ca, host, not_after=NOW + 20 * DAY)) as address:
        carrier.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        found = probe(join(host, 9092), tls_context(trusted))
    assert found.expires == (NOW + 20 * DAY).replace(microsecond=0)
    assert carrier.asked == [(join(host, 9092), None)]


def test_what_the_server_did_wrong_is_told_apart_from_the_proxy(
    ca: trustme.CA, trusted: Path, carrier: type[Carrier]
) -> None:
    with serving(server_side(ca, "other.example.org")) as address:
        carrier.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        with pytest.raises(LinkError, match=r"another host name \(through the proxy http://127"):
            probe("fed.example.org:9092", tls_context(trusted))


@pytest.mark.parametrize("refusal", [407, 502])
def test_a_proxy_that_refuses_is_named_with_its_answer(
    trusted: Path, carrier: type[Carrier], refusal: int
) -> None:
    carrier.refusal = refusal
    with pytest.raises(LinkError, match=rf"proxy http://.*does not lead there: .* {refusal} "):
        probe("fed.example.org:9092", tls_context(trusted))


def test_name_and_password_go_to_the_proxy_and_into_no_message(
    trusted: Path, carrier: type[Carrier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", os.environ["https_proxy"].replace("//", "//me:p%40ss@"))
    carrier.refusal = 403
    with pytest.raises(LinkError) as caught:
        probe("fed.example.org:9092", tls_context(trusted))
    assert carrier.asked == [("fed.example.org:9092", "Basic bWU6cEBzcw==")]
    assert "p%40ss" not in str(caught.value)


def test_a_dead_proxy_is_named_and_not_the_server(
    trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(None) as dead:
        pass
    monkeypatch.delenv("no_proxy", raising=False)
    for variable in ("https_proxy", "all_proxy"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, dead)  # without a scheme, as many write it
            told = rf"the proxy http://{dead} \({variable}\).*nothing listens there.*into no_proxy"
            with pytest.raises(LinkError, match=told):
                probe("fed.example.org:9092", tls_context(trusted))


@pytest.mark.parametrize(
    "url", ["socks5://127.0.0.1:1080", "https://127.0.0.1:1", "http://", "a:b"]
)
def test_a_proxy_of_another_kind_is_refused(
    trusted: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("https_proxy", url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        LinkError, match=r"https_proxy names the proxy .* expected http://HOST:PORT"
    ):
        probe("fed.example.org:9092", tls_context(trusted))


@pytest.mark.parametrize("unset", ["", "127.0.0.1", "*"])
def test_this_machine_and_what_no_proxy_lists_are_dialled_themselves(
    ca: trustme.CA, trusted: Path, monkeypatch: pytest.MonkeyPatch, unset: str
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", unset)
    with serving(server_side(ca)) as address:
        assert probe(address, tls_context(trusted)).expires
    told = "directly, without the proxy http://127.0.0.1:9 (https_proxy)"
    assert describe_proxy("127.0.0.1") == told
    assert (find_proxy("127.0.0.2") is None) == (unset == "*")


@pytest.mark.parametrize(
    "host", ["fed.example.org", "www.fed.example.org", "example.com", "192.0.2.7", "2001:db8::7",
             "127.0.0.1", "localhost", "::1"]
)  # fmt: skip
@pytest.mark.parametrize(
    "unset", ["", "*", "example.org", ".fed.example.org", "192.0.2.7,2001:db8::7", "a, example.com"]
)
def test_the_way_is_that_of_flowers_client(
    monkeypatch: pytest.MonkeyPatch, host: str, unset: str
) -> None:
    given = {"https_proxy": "http://proxy.example.net:3128", "no_proxy": unset}
    for name, value in variables(Path("home"), given).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        url = httpx.URL(f"https://{join(host, 9092)}/")
        is_direct = client._transport_for_url(url) is client._transport
    monkeypatch.setenv("no_proxy", unset)
    monkeypatch.delenv("NO_PROXY")
    assert (find_proxy(host) is None) == is_direct


@pytest.fixture
def issued(tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of a CA's certificate and of its list of revocations."""
    key = issuer.new_key()
    authority = issuer.authority(key, "a test")
    ca, crl = tmp_path / "ca.crt", tmp_path / "ca.crl"
    ca.write_bytes(issuer.pem(authority))
    crl.write_bytes(issuer.pem(issuer.revocation_list(authority, key, [])))
    return ca, crl


def test_one_ca_is_trusted_and_host_names_are_compared(issued: tuple[Path, Path]) -> None:
    made = tls_context(issued[0])
    assert len(made.get_ca_certs()) == 1  # none of the system's
    assert made.verify_mode == ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2


def test_revocations_are_asked_for_where_there_is_a_list(issued: tuple[Path, Path]) -> None:
    ca, crl = issued
    assert tls_context(ca, crl).verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert not tls_context(ca, crl.with_name("none.crl")).verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="join again with the invitation"):
        tls_context(path)
