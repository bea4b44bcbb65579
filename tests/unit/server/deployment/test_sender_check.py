"""The fleet API's own routes and errors; what the door stops is in `test_superlink_faults`."""

import pytest
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.superlink.routers.fleet import router

from tests.superlink import superlink

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found")  # Flower's migrations


@pytest.fixture
def link(tmp_path, monkeypatch):
    with superlink(tmp_path, monkeypatch) as link:
        yield link


def push(link, node, *sources):
    messages = [Message(metadata=Metadata(src_node_id=s, run_id=link.run)) for s in sources]
    request = PushMessagesRequest(node=Node(node_id=node), messages_list=messages)
    return router.fleet_push_messages(request, link.state)


def test_a_node_answers_for_itself(link):
    node = link.node("north")
    assert link.grid.push_messages([FlowerMessage(RecordDict(), node.id, "train")])
    message = node.pull()
    node.reply(FlowerMessage(RecordDict(), reply_to=message))
    [found] = link.grid.pull_messages([message.metadata.message_id])
    assert found.metadata.src_node_id == node.id


@pytest.mark.parametrize("sources", [(8,), (0,), (7, 8), ()])
def test_F15_a_node_that_answers_for_another_is_refused(link, sources):
    with pytest.raises(FlowerError, match=r"node 7 (answered for|sent \d replies)") as refusal:
        push(link, 7, *sources)
    assert API_ERROR_MAP[refusal.value.code].http_status_code == 403


def test_a_reply_that_nobody_waits_for_is_asked_nothing_of(link):
    """As Flower does it: a site that is late, or whose server was started again, did no wrong."""
    assert list(push(link, 7, 7).objects_to_push) == []
