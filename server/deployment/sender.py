"""Let a node answer in its own name only (F10, F15).

Flower 1.41 checks the key of the node that a request comes from, and that a reply names the node
which was asked; not that these two are one. Whoever knew the ids of another site's node and message
could answer in its place. The handler that is replaced here is not public.
"""

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.servicer.fleet import fleet_handlers

_push = fleet_handlers.push_messages


def push_messages(request: PushMessagesRequest, state: LinkState) -> PushMessagesResponse:
    """Take a node's reply, unless it says that it is another node's.

    Raises
    ------
    FlowerError
        It does; the node is told 403, which is audited.
    """
    node = request.node.node_id
    for message in request.messages_list:
        if message.metadata.src_node_id != node:
            told = f"node {node} answered for {message.metadata.src_node_id}"
            raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, told)
    return _push(request, state)


def check() -> None:
    """Check the sender of every reply from now on, in this process."""
    fleet_handlers.push_messages = push_messages
