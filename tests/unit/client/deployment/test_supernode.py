import ssl
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr import app
from flwr.proto.error_pb2 import Error
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message, Metadata
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.deployment import connection_status
from client.deployment.connection_status import StatusFile
from client.deployment.egress_filter import EgressFilter
from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from client.deployment.supernode import Watch, guarded_client, options, pull_or_reply
from fedprompt.protocol.address import free_port
from tests.enrolled import invitation, message, site

NOBODY = EgressFilter(SiteFolder(Path("nowhere")))  # of requests that no border looks at

# every field of what a SuperNode sends -> what it tells the server
ENVELOPE = {
    "RegisterNodeFleetRequest.public_key": "the site's key; registration is off",
    "ActivateNodeRequest.public_key": "the site's key",
    "ActivateNodeRequest.heartbeat_interval": "Flower's constant, 30 s",
    "DeactivateNodeRequest.node_id": "what the server calls this site",
    "UnregisterNodeFleetRequest.node_id": "what the server calls this site; registration is off",
    "SendNodeHeartbeatRequest.node.node_id": "what the server calls this site",
    "SendNodeHeartbeatRequest.heartbeat_interval": "Flower's constant, 30 s",
    "PullMessagesRequest.node.node_id": "what the server calls this site",
    "PullMessagesRequest.message_ids": "empty",
    "PushMessagesRequest.node.node_id": "what the server calls this site",
    "PushMessagesRequest.messages_list.metadata.run_id": "the server's own",
    "PushMessagesRequest.messages_list.metadata.message_id": "the hash of the reply's head",
    "PushMessagesRequest.messages_list.metadata.src_node_id": "what the server calls this site",
    "PushMessagesRequest.messages_list.metadata.dst_node_id": "the server",
    "PushMessagesRequest.messages_list.metadata.reply_to_message_id": "the server's own",
    "PushMessagesRequest.messages_list.metadata.group_id": "the server's own",
    "PushMessagesRequest.messages_list.metadata.ttl": "the server's own: the border sets it",
    "PushMessagesRequest.messages_list.metadata.message_type": "the server's own",
    "PushMessagesRequest.messages_list.metadata.created_at": "the server's own: the border sets it",
    "PushMessagesRequest.messages_list.metadata.src_task_id": "the server's own",
    "PushMessagesRequest.messages_list.metadata.dst_task_id": "the server's own",
    "PushMessagesRequest.messages_list.content": "empty: the records travel as objects",
    "PushMessagesRequest.messages_list.error.code": "that there is an error",
    "PushMessagesRequest.messages_list.error.reason": "logged by the border",
    "PushMessagesRequest.message_object_trees.object_id": "the hash of an object",
    "PushMessagesRequest.message_object_trees.children": "the same, below it",
    "PushMessagesRequest.clientapp_runtime_list": "zero",
    "GetRunRequest.node.node_id": "what the server calls this site",
    "GetRunRequest.run_id": "the server's own",
    "GetFabRequest.node.node_id": "what the server calls this site",
    "GetFabRequest.hash_str": "the server's own",
    "GetFabRequest.run_id": "the server's own",
    "PushObjectRequest.node.node_id": "what the server calls this site",
    "PushObjectRequest.run_id": "the server's own",
    "PushObjectRequest.object_id": "the hash of an object",
    "PushObjectRequest.object_content": "the reply, logged by the border",
    "PushObjectRequest.session_id": "the server's own",
    "PullObjectRequest.node.node_id": "what the server calls this site",
    "PullObjectRequest.run_id": "the server's own",
    "PullObjectRequest.object_id": "the server's own",
    "ConfirmMessageReceivedRequest.node.node_id": "what the server calls this site",
    "ConfirmMessageReceivedRequest.run_id": "the server's own",
    "ConfirmMessageReceivedRequest.message_object_id": "the server's own",
}


def fields(described: Any, path: str) -> Iterator[str]:
    for field in described.fields:
        name = f"{path}.{field.name}"
        inner = field.message_type
        if inner is None or inner is described or inner.name == "RecordDict":
            yield name
        else:
            yield from fields(inner, name)


def test_every_field_that_a_supernode_sends_is_known() -> None:
    """A version of Flower that sends another number is looked at before it is used."""
    calls = [call for name, call in vars(FleetHttpClient).items() if not name.startswith("_")]
    requests = [typing.get_type_hints(call)["request"].DESCRIPTOR for call in calls]
    sent = {path for request in requests for path in fields(request, request.name)}
    assert sent == ENVELOPE.keys()


def pushed(folder: SiteFolder, request: PushMessagesRequest) -> PushMessagesRequest:
    """Return what reaches the server of a request."""
    found: list[PushMessagesRequest] = []
    client = guarded_client(None, Watch(StatusFile(folder.contact)), EgressFilter(folder))
    with client.from_server_address("127.0.0.1:1", True, None, []) as made:

        def note(**call: Any) -> PushMessagesResponse:
            found.append(call["request"])
            return PushMessagesResponse()

        setattr(made, "_unary_unary", note)  # noqa: B010
        made.PushMessages(request)
    return found[0]


def test_how_long_a_site_worked_does_not_leave_it(folder: SiteFolder) -> None:
    request = PushMessagesRequest(clientapp_runtime_list=[12.5])
    assert list(pushed(folder, request).clientapp_runtime_list) == [0.0]


def test_an_error_of_flower_s_own_is_logged_before_it_leaves(folder: SiteFolder) -> None:
    for code, reason in ((8, "ClientApp stopped responding."), (2, "logged by the border")):
        head = Message(
            metadata=Metadata(message_type="train"), error=Error(code=code, reason=reason)
        )
        pushed(folder, PushMessagesRequest(messages_list=[head]))
    lines, faults = EgressLog(folder.egress).verify()
    assert [line.entry["error"] for line in lines if line.entry] == [
        "ClientApp stopped responding."
    ]
    assert not faults


class AllIsSentError(BaseException):
    """End Flower's loop, which catches every other error."""


def test_a_reply_leaves_though_that_of_a_stopped_run_was_sent_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flower's own loop: a message comes, an old reply turns up first, no more message comes."""
    state = InMemoryNodeState(InMemoryObjectStore())
    stopped, going = 3, 7
    pulled = [going]

    def reply(run_id: int) -> None:
        asked = message("train", app.RecordDict())
        asked.metadata.__dict__ |= {"_run_id": run_id, "_message_id": f"message of {run_id}"}
        start_client_internal._insert_message(
            app.Message(app.RecordDict(), reply_to=asked), state, state.object_store
        )

    def send(told: app.Message, *_: object) -> tuple[set[str], str]:
        sent.append(told.metadata.run_id)
        if told.metadata.run_id == going:
            raise AllIsSentError
        reply(going)  # the worker is done a moment later
        return set(), ""

    @contextmanager
    def connection(**_: object) -> Iterator[tuple[object, ...]]:
        yield 1, None, send, None, None, None, None, None

    sent: list[int] = []
    waits = iter(range(100))
    monkeypatch.setattr(start_client_internal, "_init_connection", connection)
    monkeypatch.setattr(start_client_internal, "register_signal_handlers", lambda **_: None)
    clock = SimpleNamespace(sleep=lambda _: next(waits))
    monkeypatch.setattr(start_client_internal, "time", clock)
    pull = pull_or_reply(lambda **_: pulled.pop() if pulled else None)
    monkeypatch.setattr(start_client_internal, "_pull_and_store_message", pull)
    states = SimpleNamespace(
        state=lambda: state, objectstore_factory=SimpleNamespace(store=lambda: state.object_store)
    )
    reply(stopped)
    with pytest.raises(AllIsSentError):
        start_client_internal.start_client_internal(
            state_factory=states, server_address="127.0.0.1:1", node_config={}, isolation="process"
        )
    assert sent == [stopped, going]


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / 'a "site"', tmp_path, invitation(("cat", "dog")))


def ask(watch: Watch, status: int, location: str = "") -> list[str]:
    """Send one request to a server that answers with a status; return the paths it was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"127.0.0.1:{server.server_address[1]}"
    try:
        client = guarded_client(None, watch, NOBODY).from_server_address(address, True, None, [])
        with client:
            client.ActivateNode(ActivateNodeRequest())
    except httpx.HTTPStatusError:
        pass
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return asked


def test_an_answer_is_noted(folder: SiteFolder) -> None:
    watch = Watch(StatusFile(folder.contact))
    assert ask(watch, 200) == ["/v1/fleet/activate-node"]
    assert not watch.refused
    found = connection_status.read(folder.contact)
    assert found.heard
    assert (found.refused, found.trouble) == ("", "")


def test_F15_a_refused_key_is_told_from_other_faults(folder: SiteFolder) -> None:
    watch = Watch(StatusFile(folder.contact))
    for status in (404, 500, 503):
        ask(watch, status)
        assert not watch.refused
    for status in (401, 412):
        ask(watch, status)
        assert watch.refused
    found = connection_status.read(folder.contact)
    assert found.refused
    assert found.trouble == "the server refuses this key"


def test_F15_flower_tells_a_key_that_is_not_enrolled_so() -> None:
    """At activation it is 412, not 401: also for a node that seems to be online still."""
    spec = API_ERROR_MAP[ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED]
    assert spec.http_status_code == httpx.codes.PRECONDITION_FAILED


def test_a_redirect_is_not_followed(folder: SiteFolder) -> None:
    """Flower's own client would send the message again, to wherever the server points."""
    elsewhere: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            elsewhere.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    thief = ThreadingHTTPServer(("127.0.0.1", 0), Thief)
    thread = threading.Thread(target=thief.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        target = f"http://127.0.0.1:{thief.server_address[1]}/v1/fleet/activate-node"
        ask(Watch(StatusFile(folder.contact)), 307, target)
    finally:
        thief.shutdown()
        thief.server_close()
        thread.join()
    assert elsewhere == []
    assert "redirects" in connection_status.read(folder.contact).trouble


def test_a_server_that_is_away_is_noted(folder: SiteFolder) -> None:
    port = free_port()
    client = guarded_client(None, Watch(StatusFile(folder.contact)), NOBODY)
    with (
        client.from_server_address(f"127.0.0.1:{port}", True, None, []) as made,
        pytest.raises(httpx.ConnectError),
    ):
        made.ActivateNode(ActivateNodeRequest())
    assert connection_status.read(folder.contact).trouble.startswith("ConnectError")


def test_a_proxy_that_is_away_is_named(folder: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("https_proxy", proxy.replace("//", "//me:secret@"))
    monkeypatch.delenv("no_proxy", raising=False)
    client = guarded_client(ssl.create_default_context(), Watch(StatusFile(folder.contact)), NOBODY)
    with (
        client.from_server_address("fed.example.org:9092", False, None, []) as made,
        pytest.raises(httpx.ConnectError),
    ):
        made.ActivateNode(ActivateNodeRequest())
    trouble = connection_status.read(folder.contact).trouble
    assert trouble.endswith(f"(through the proxy {proxy} (https_proxy))")
    assert "secret" not in trouble


def test_the_tls_context_is_the_sites_own(folder: SiteFolder) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = guarded_client(context, Watch(StatusFile(folder.contact)), NOBODY)
    root = folder.ca_certificate.read_bytes()
    with client.from_server_address("127.0.0.1:9", False, root, []) as made:
        assert made._client._transport._pool._ssl_context is context
        assert made._client.follow_redirects is False


def test_flower_asks_for_its_client_where_it_is_replaced() -> None:
    assert hasattr(fleet_http_connection, "FleetHttpClient")
    assert hasattr(httpx.Client(), "_transport")


def test_the_command_line_has_key_and_certificate(folder: SiteFolder) -> None:
    given = options(folder, folder.node(), 4321)
    pairs = dict(zip(given[::2], given[1::2], strict=True))
    assert pairs["--auth-supernode-private-key"] == str(folder.key)
    assert pairs["--root-certificates"] == str(folder.ca_certificate)
    assert (pairs["--host"], pairs["--isolation"]) == ("127.0.0.1", "process")
    assert "--insecure" not in given
