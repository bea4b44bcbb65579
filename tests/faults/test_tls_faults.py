"""Servers that cannot be trusted, and links without encryption, at real listeners (F16, F17)."""

import logging
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import httpx
import pytest
from click.testing import CliRunner
from flwr.proto.fleet_pb2 import ActivateNodeRequest

from client.deployment import connection_status, site_folder
from client.deployment.command import group as flower_client
from client.deployment.connection_status import StatusFile
from client.deployment.egress_filter import EgressFilter
from client.deployment.site_folder import SiteFolder
from client.deployment.supernode import Watch, guarded_client
from client.deployment.tls_probe import tls_context
from fedprompt.protocol import invitation as invitations
from server.deployment import create_folder, credentials, enrolment, issuer
from server.deployment.command import group as flower_server
from server.deployment.folder import DeploymentFolder
from server.run_folder import run_status
from tests import round_lines
from tests.deployment import CLASSES, log_lines, pictures

NOW, DAY = datetime.now(UTC), timedelta(days=1)


@pytest.fixture(autouse=True)
def logs_as_before():
    """Undo what a command did to this process's logs: its standard error is closed by then."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a deployment with one enrolled site, whose pictures and features are kept."""
    root = tmp_path_factory.mktemp("deployment")
    folder = DeploymentFolder(root / "server")
    create_folder.create(folder, "127.0.0.1:9092", ",".join(CLASSES), {}, 397)
    enrolment.enrol(folder, "north", 0, root / "north.fedprompt")
    pictures(root / "pictures", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPROMPT_CACHE", str(root / "cache"))
        yield folder


@pytest.fixture
def invitation(place, tmp_path):
    """Return a function that changes the site's invitation: its address, its revocation list."""
    found = invitations.read_file(place.path.parent / "north.fedprompt")

    def make(**changes):
        path = tmp_path / "north.fedprompt"
        path.write_bytes(
            invitations.pack(found.model_copy(update=changes), credentials.ca_key(place))
        )
        return path

    return make


class Listener:
    """A server on loopback that answers any request by 404 and keeps what it was told."""

    def __init__(self, context: ssl.SSLContext | None, host: str) -> None:
        self.context, self.heard = context, bytearray()
        self.socket = socket.create_server((host, 0))
        self.address = f"{host}:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                connection.settimeout(5)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        with connection:
            self.heard += connection.recv(65536)
            date = formatdate(usegmt=True)
            connection.sendall(
                f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode()
            )


@contextmanager
def listening(context: ssl.SSLContext | None, host: str = "127.0.0.1") -> Iterator[Listener]:
    made = Listener(context, host)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.socket.shutdown(socket.SHUT_RDWR)
        made.socket.close()
        thread.join(10)


class Made:
    """A certificate with its key, as a server's TLS context."""

    def __init__(self, place, tmp_path, ca=None, days=397, now=NOW, revoked=False) -> None:
        ca_key, authority = ca or (credentials.ca_key(place), credentials.ca_certificate(place))
        key = issuer.new_key()
        self.certificate = issuer.server_certificate(
            key, authority, ca_key, ["127.0.0.1"], days, now
        )
        self.context = context_of(tmp_path, key, self.certificate)
        serials = [(self.certificate.serial_number, NOW)] if revoked else []
        own = credentials.ca_key(place), credentials.ca_certificate(place)
        listed = issuer.revocation_list(own[1], own[0], serials)
        self.crl = issuer.pem(listed).decode()


def context_of(tmp_path, key, certificate):
    (tmp_path / "listener.crt").write_bytes(issuer.pem(certificate))
    (tmp_path / "listener.key").write_bytes(issuer.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "listener.crt", tmp_path / "listener.key")
    return context


def new_ca(name="fedprompt CA of 127.0.0.1"):
    key = issuer.new_key()
    return key, issuer.authority(key, name)


def self_signed(place, tmp_path):
    made = Made(place, tmp_path)
    key = issuer.new_key()
    made.context = context_of(tmp_path, key, issuer.authority(key, "127.0.0.1"))
    return made


def old_tls(place, tmp_path):
    made = Made(place, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.context.set_ciphers("ALL:@SECLEVEL=0")
        made.context.minimum_version = made.context.maximum_version = ssl.TLSVersion.TLSv1_1
    return made


def plaintext(place, tmp_path):
    made = Made(place, tmp_path)
    made.context = None
    return made


# fault -> the listener, what `join` says, what the SuperNode's diary says
Case = tuple[Callable[..., Made], str, str]
FAULTS: dict[str, Case] = {
    "expired": (
        lambda place, tmp: Made(place, tmp, days=30, now=NOW - 31 * DAY),
        "certificate has expired; .*flower-server renew", "certificate has expired",
    ),
    "not yet valid": (
        lambda place, tmp: Made(place, tmp, now=NOW + 2 * DAY),
        "not valid yet; compare this machine's clock", "certificate is not yet valid",
    ),
    "unknown CA": (
        lambda place, tmp: Made(place, tmp, ca=new_ca("somebody")),
        "not signed by this deployment's CA", "unable to get local issuer certificate",
    ),
    "another CA of the same name": (
        lambda place, tmp: Made(place, tmp, ca=new_ca()),
        "not signed by this deployment's CA", "unable to get local issuer certificate",
    ),
    "self-signed": (self_signed, "not signed by this deployment's CA", "self-signed certificate"),
    "revoked": (
        lambda place, tmp: Made(place, tmp, revoked=True),
        "certificate is revoked", "certificate revoked",
    ),
    "plaintext": (plaintext, "does not speak TLS; nothing is sent in the clear", "SSL"),
    "TLS 1.1": (old_tls, "TLS 1.2", "protocol version|PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL"),
}  # fmt: skip


def join(invitation, place, tmp_path):
    arguments = ["join", invitation, "--data", place.path.parent / "pictures"]
    arguments += ["--folder", tmp_path / "north", "--no-start"]
    return CliRunner().invoke(flower_client, [str(part) for part in arguments])


def test_F16_a_good_server_is_joined(place, invitation, tmp_path):
    """Else nothing below would prove anything."""
    made = Made(place, tmp_path)
    with listening(made.context) as listener:
        done = join(invitation(address=listener.address, crl=made.crl), place, tmp_path)
    assert done.exit_code == 0, done.output
    assert bytes(listener.heard).startswith(b"HEAD /v1/fleet/ ")


@pytest.mark.parametrize("fault", FAULTS)
def test_F16_F17_join_refuses_and_sends_nothing(place, invitation, tmp_path, fault):
    make, told, _ = FAULTS[fault]
    made = make(place, tmp_path)
    with listening(made.context) as listener:
        done = join(invitation(address=listener.address, crl=made.crl), place, tmp_path)
    assert done.exit_code == 15, done.output
    [line] = [x for x in done.output.splitlines() if re.match(r"failed +server ", x)]
    assert re.search(told, line), line
    assert listener.address in line
    assert_nothing_sent(listener)


@pytest.mark.parametrize("fault", FAULTS)
def test_F16_F17_the_supernode_refuses_and_sends_nothing(place, invitation, tmp_path, fault):
    """A server that was good when the site joined may be another one later."""
    make, _, told = FAULTS[fault]
    made = make(place, tmp_path)
    folder = SiteFolder(tmp_path / "north")
    with listening(made.context) as listener:
        found = invitations.read_file(invitation(address=listener.address, crl=made.crl))
        site_folder.create(folder, found, "pictures")
        activate(folder, listener.address)
    assert re.search(told, connection_status.read(folder.contact).trouble)
    assert_nothing_sent(listener)


def activate(folder, address):
    trust = tls_context(folder.ca_certificate, folder.revocations)
    client = guarded_client(trust, Watch(StatusFile(folder.contact)), EgressFilter(folder))
    made = client.from_server_address(address, False, str(folder.ca_certificate), [])
    with made as flower, pytest.raises(httpx.TransportError):
        flower.ActivateNode(ActivateNodeRequest(public_key=b"k", heartbeat_interval=30))


def assert_nothing_sent(listener):
    """Assert that nothing came but, at a server without TLS, the greeting of TLS."""
    heard = bytes(listener.heard)
    if listener.context:
        assert heard == b""
    else:
        assert heard.startswith(b"\x16\x03")
        assert b"HTTP" not in heard


def test_F16_a_certificate_of_another_host(place, invitation, tmp_path):
    """The listener is at an address of loopback that the certificate does not name."""
    made = Made(place, tmp_path)
    with listening(made.context, "127.0.0.2") as listener:
        done = join(invitation(address=listener.address, crl=made.crl), place, tmp_path)
        folder = SiteFolder(tmp_path / "north")
        activate(folder, listener.address)
    assert done.exit_code == 15, done.output
    assert "certificate is for another IP address" in done.output
    assert "IP address mismatch" in connection_status.read(folder.contact).trouble
    assert_nothing_sent(listener)


def test_F17_a_client_in_plaintext_is_no_use_to_a_server_with_tls(place, invitation, tmp_path):
    made = Made(place, tmp_path)
    with listening(made.context) as listener:
        path = invitation(address=listener.address, crl=made.crl)
        folder = SiteFolder(tmp_path / "north")
        site_folder.create(folder, invitations.read_file(path), str(place.path.parent / "pictures"))
        text = folder.toml.read_text().replace("[node]\n", "[node]\ninsecure = true\n")
        folder.toml.write_text(text)
        done = CliRunner().invoke(flower_client, ["doctor", str(folder.path)])
    assert done.exit_code == 15, done.output
    assert "insecure = true" in done.output
    assert listener.heard == b""


@pytest.mark.parametrize("verb", ["start", "doctor"])
def test_F17_a_site_speaks_plaintext_on_loopback_only(place, invitation, tmp_path, verb):
    folder = SiteFolder(tmp_path / "north")
    found = invitations.read_file(invitation(address="192.0.2.7:9092"))
    site_folder.create(folder, found, "pictures")
    text = folder.toml.read_text().replace("[node]\n", "[node]\ninsecure = true\n")
    folder.toml.write_text(text)
    done = CliRunner().invoke(flower_client, [verb, str(folder.path)])
    assert done.exit_code == 2, done.output
    assert "plaintext is allowed on loopback only" in " ".join(done.output.split())


@pytest.fixture
def server(tmp_path):
    """Return a server's folder; its run is done, so that `start` has nothing to wait for."""
    folder = DeploymentFolder(tmp_path / "server")
    create_folder.create(folder, "127.0.0.1:9092", ",".join(CLASSES), {"server.rounds": 1}, 397)
    line = {"strikes": {}, "prompt": "0" * 64, "information_density": 1.0}
    for number in (0, 1):
        round_lines.append(folder.run, {"round": number, **line})
    run_status.write_success(folder.run, "0" * 64)
    return folder


def start(folder):
    return CliRunner().invoke(flower_server, ["start", str(folder.path)])


def issue(folder, days, now=NOW, host="127.0.0.1"):
    key, ca_key = issuer.new_key(), credentials.ca_key(folder)
    ca = credentials.ca_certificate(folder)
    names = {"hosts": [host], "days": days, "now": now}
    made = issuer.server_certificate(key, ca, ca_key, **names)
    folder.key.write_bytes(issuer.key_pem(key))
    folder.certificate.write_bytes(issuer.pem(made))
    return made


@pytest.mark.parametrize(
    ("fault", "told"),
    [("expired", "expired on"), ("early", "not valid before"), ("host", "not for"),
     ("revoked", "was revoked")],
)  # fmt: skip
def test_F16_the_server_refuses_to_start_with_a_certificate_that_sites_refuse(server, fault, told):
    text = server.toml.read_text()
    if fault == "expired":
        issue(server, days=30, now=NOW - 31 * DAY)
    elif fault == "early":
        issue(server, days=30, now=NOW + 2 * DAY)
    elif fault == "host":
        server.toml.write_text(text.replace("127.0.0.1:9092", "fed.example.org:9092"))
    else:
        serial, key = issue(server, days=90).serial_number, credentials.ca_key(server)
        ca = credentials.ca_certificate(server)
        listed = issuer.revocation_list(ca, key, [(serial, NOW)])
        server.revocations.write_bytes(issuer.pem(listed))
    done = start(server)
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert "flower-server renew" in done.stderr


def test_F17_the_server_speaks_plaintext_on_loopback_only(server):
    text = server.toml.read_text().replace('host = "127.0.0.1"', 'host = "0.0.0.0"')
    server.toml.write_text(text.replace("[deployment]", "[deployment]\ninsecure = true"))
    done = start(server)
    assert done.exit_code == 2, done.output
    assert "plaintext is allowed on loopback only" in done.stderr


@pytest.mark.parametrize(("days", "warns"), [(31, False), (29, True)])
def test_F16_the_server_warns_30_days_ahead(server, days, warns):
    issue(server, days)
    assert start(server).exit_code == 0
    told = [line["message"] for line in log_lines(server.logs) if line["level"] == "warning"]
    assert any("certificate expires in" in text for text in told) == warns
    shown = CliRunner().invoke(flower_server, ["status", str(server.path)]).output
    assert ("certificate expires in" in shown) == warns


@pytest.mark.parametrize(("days", "warns"), [(31, False), (29, True)])
def test_F16_the_site_warns_30_days_ahead(place, invitation, tmp_path, days, warns):
    made = Made(place, tmp_path, days=days)
    with listening(made.context) as listener:
        done = join(invitation(address=listener.address, crl=made.crl), place, tmp_path)
    assert done.exit_code == 0, done.output
    assert bool(
        re.search(r"note +server .*days left; tell the server's administrator", done.output)
    ) == (warns)
