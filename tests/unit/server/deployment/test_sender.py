"""The fleet API's own handler and error, before a state that must not be reached."""

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers

from server.deployment import sender


def push(node: int, *sources: int) -> PushMessagesRequest:
    messages = [Message(metadata=Metadata(src_node_id=source)) for source in sources]
    return PushMessagesRequest(node=Node(node_id=node), messages_list=messages)


@pytest.fixture
def checked(monkeypatch):
    """Check senders as a SuperLink does; its own handler notes what reached it."""
    reached = []
    monkeypatch.setattr(sender, "_push", lambda request, state: reached.append(request))
    monkeypatch.setattr(fleet_handlers, "push_messages", fleet_handlers.push_messages)
    sender.check()
    return reached


def test_a_node_answers_for_itself(checked):
    request = push(7, 7)
    router.fleet_push_messages(request, None)
    assert checked == [request]


@pytest.mark.parametrize("sources", [(8,), (0,), (7, 8)])
def test_F15_a_node_that_answers_for_another_is_refused(checked, sources):
    with pytest.raises(FlowerError, match="node 7 answered for") as refusal:
        router.fleet_push_messages(push(7, *sources), None)
    assert checked == []
    assert API_ERROR_MAP[refusal.value.code].http_status_code == 403
