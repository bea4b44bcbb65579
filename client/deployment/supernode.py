"""Run Flower's SuperNode under the site's rules.

``python -m client.deployment.supernode FOLDER PORT`` is a child process of ``flower-client``.
Flower's own command line parses the options. Ours are the TLS context, which knows the CA's
revocations; that a redirect is not followed, by which a server could have a site's messages sent to
any other host; that Flower's envelope tells nothing of the site: not how long the ClientApp worked,
which tells how many images there are, and no error that is not in the site's log; and that a reply
that is ready is sent whether or not another message came. The modules used for that are not public:
the range of Flower's versions in pyproject.toml is the tested one.
"""

import logging
import ssl
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import uvicorn.config
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.deployment import tls_probe
from client.deployment.connection_status import REFUSED, StatusFile
from client.deployment.egress_filter import EgressFilter
from client.deployment.site_folder import NodeConfig, SiteFolder
from fedprompt.processes import logs, parent_watchdog

_AT_THE_DOOR = {httpx.codes.UNAUTHORIZED, httpx.codes.PRECONDITION_FAILED}


class Watch:
    """Note in the status file what becomes of each request, and whether the key was refused."""

    def __init__(self, status: StatusFile) -> None:
        self.status = status
        self.refused = False

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Pass a request on."""
        try:
            response = call_next(context)
        except httpx.TransportError as error:
            way = tls_probe.describe_proxy(context.request.url.host)
            self.status.record_failure(
                f"{type(error).__name__}: {error}"[:300] + (way and f" ({way})")
            )
            raise
        # a key that is not enrolled, or whose node seems to be online still, is told at activation
        at_the_door = context.request.url.path.endswith("/activate-node")
        refusals = _AT_THE_DOOR if at_the_door else {httpx.codes.UNAUTHORIZED}
        self.refused = response.status_code in refusals
        if self.refused:
            self.status.record_refusal()
        elif response.is_redirect:
            self.status.record_failure(
                "the server redirects to another address; it is not followed"
            )
        else:
            self.status.record_answer()
        return response


def guarded_client(
    context: ssl.SSLContext | None, watch: Watch, egress: EgressFilter
) -> type[FleetHttpClient]:
    """Return Flower's client with the site's TLS context, without redirects, and watched."""

    class Guarded(FleetHttpClient):
        def __init__(self, base_url: str, *, interceptors: Iterable[Any] = (), **_: Any) -> None:
            verify = context or True
            super().__init__(base_url, interceptors=[*interceptors, watch], verify=verify)
            self._client.follow_redirects = False

        def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:  # noqa: N802
            """Send the head of a reply, without the seconds that it took."""
            request.clientapp_runtime_list[:] = [0.0] * len(request.clientapp_runtime_list)
            for message in request.messages_list:
                egress.log_flower_error(message)
            return super().PushMessages(request)

    return Guarded


def pull_or_reply(pull: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return Flower's ``pull`` of a message, which returns a run if only a reply is ready, too.

    Flower's loop sends what replies are ready after each message that it pulled, and at no other
    time. Where the reply to a message of a stopped run turns up instead of the one that the server
    waits for, that one would stay here until the server sends another message.
    """

    def pull_or_find(*, state: InMemoryNodeState, **connection: object) -> int | None:
        run_id = pull(state=state, **connection)
        return run_id if run_id is not None else _run_of_a_reply(state)

    return pull_or_find


def _run_of_a_reply(state: InMemoryNodeState) -> int | None:
    """Return the run of a reply that waits to be sent; None if there is none."""
    with state.lock_msg_store:
        waiting = [e.message.metadata for e in state.msg_store.values() if not e.is_retrieved]
    return next((metadata.run_id for metadata in waiting if metadata.reply_to_message_id), None)


def options(folder: SiteFolder, node: NodeConfig, port: int) -> list[str]:
    """Return the SuperNode's command line; the worker's port is on loopback."""
    common = [
        "--superlink", node.server,
        "--isolation", "process",
        "--host", "127.0.0.1",
        "--port", str(port),
        "--superexec-auth-secret-file", str(folder.secret),
        "--node-config", str(folder.node_config),
    ]  # fmt: skip
    if node.insecure:
        return [*common, "--insecure"]
    trust = ["--root-certificates", str(folder.ca_certificate)]
    return [*common, *trust, "--auth-supernode-private-key", str(folder.key)]


def main() -> None:
    """Serve until told to stop; exit 77 if the server refused this site's key."""
    folder, port = SiteFolder(Path(sys.argv[1])), int(sys.argv[2])
    parent_watchdog.watch_stdin()
    logs.configure(None)
    uvicorn.config.LOGGING_CONFIG["loggers"] = {}  # else it speaks past the log
    node, watch = folder.node(), Watch(StatusFile(folder.contact))
    context = tls_probe.context_of(folder)
    client = guarded_client(context, watch, EgressFilter(folder))
    setattr(fleet_http_connection, "FleetHttpClient", client)  # noqa: B010
    pull = pull_or_reply(start_client_internal._pull_and_store_message)
    setattr(start_client_internal, "_pull_and_store_message", pull)  # noqa: B010
    sys.argv = ["flower-supernode", *options(folder, node, port)]
    try:
        flower_supernode()
    except SystemExit:
        if watch.refused:
            logging.shutdown()
            raise SystemExit(REFUSED) from None
        raise


if __name__ == "__main__":
    main()
