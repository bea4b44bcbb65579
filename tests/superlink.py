"""Flower's own SuperLink in this process: real state, real objects, real expiry, no network.

The handlers behind both APIs are called as the routes call them, so that what a deployment replaces
in them is replaced here too. Nodes are driven step by step, which a test needs to be hostile.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node as ProtoNode
from flwr.proto.runtime_pb2 import GetNodesRequest
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from server.deployment import sender_check

MOST = 1 << 20  # bytes of one reply
_LONG = 1e5  # seconds between two signs of life: nobody is missed on a busy machine


class SuperLink:
    """One SuperLink with one running run."""

    def __init__(self, database: Path) -> None:
        shutil.copyfile(_migrated(), database)
        objects = ObjectStoreFactory(str(database))
        self.state: LinkState = LinkStateFactory(
            str(database), NoOpFederationManager(), objects
        ).state()
        self.run = self.state.create_run(
            "fab", "1", "hash", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        (self.task,) = self.state.get_tasks(run_ids=[self.run])
        assert self.state.claim_task(self.task.task_id)
        assert self.state.activate_task(self.task.task_id)
        self.grid = Grid(self)

    def node(self, name: str) -> "Node":
        """Return a node that is enrolled and online."""
        key = name.encode()
        number = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, _LONG, name=name)
        assert self.state.activate_node(number, _LONG)
        return Node(self, number)


class Grid(HttpGrid):
    """Flower's grid, its requests handed to the handlers directly."""

    def __init__(self, link: SuperLink) -> None:
        super().__init__(token="none")
        self._link = link
        self.set_run(Run.create_empty(link.run))
        self.before_look: Callable[[], None] = lambda: None

    @property
    def _runtime_client(self) -> Any:
        return self

    def get_node_ids(self) -> Iterable[int]:
        return self._link.state.get_nodes(self._link.run)

    def PushMessages(self, request: Any) -> Any:
        return runtime_handlers.push_messages(request, self._link.state, self._link.task)

    def PullMessages(self, request: Any) -> Any:
        self.before_look()
        return runtime_handlers.pull_messages(request, self._link.state, self._link.task)

    def PushObject(self, request: Any) -> Any:
        return runtime_handlers.push_object(request, self._link.state, self._link.task)

    def PullObject(self, request: Any) -> Any:
        return runtime_handlers.pull_object(request, self._link.state, self._link.task)

    def ConfirmMessageReceived(self, request: Any) -> Any:
        return runtime_handlers.confirm_message_received(request, self._link.state, self._link.task)

    def GetNodes(self, request: GetNodesRequest) -> Any:
        return runtime_handlers.get_nodes(request, self._link.state, self._link.task)


class Node:
    """One node: what a SuperNode does, one step at a time."""

    def __init__(self, link: SuperLink, number: int) -> None:
        self._link, self.id = link, number
        self._me = ProtoNode(node_id=number)

    def pull(self) -> Message | None:
        """Return the next message, fetched whole and confirmed; None if there is none."""
        state = self._link.state
        response = fleet_handlers.pull_messages(
            PullMessagesRequest(node=self._me), state, state.object_store
        )
        if not response.messages_list:
            return None
        (tree,) = response.message_object_trees
        names = {found.object_id for found in iterate_object_tree(tree)}
        contents = {name: self.fetch(name).object_content for name in names}
        self.confirm(tree.object_id)
        message = inflate_object_from_contents(tree.object_id, contents)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def fetch(self, object_id: str) -> PullObjectResponse:
        """Ask for an object."""
        request = PullObjectRequest(node=self._me, run_id=self._link.run, object_id=object_id)
        return fleet_handlers.pull_object(request, self._link.state)

    def confirm(self, message_id: str) -> None:
        """Say that a message is here."""
        request = ConfirmMessageReceivedRequest(
            node=self._me, run_id=self._link.run, message_object_id=message_id
        )
        state = self._link.state
        fleet_handlers.confirm_message_received(request, state, state.object_store)

    def announce(self, reply: Message, tree: ObjectTree | None = None) -> PushMessagesResponse:
        """Announce a reply."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        head = message_to_proto(reply)
        head.ClearField("content")
        if reply.has_content():
            head.content.CopyFrom(message_to_proto(_emptied(reply)).content)
        request = PushMessagesRequest(
            node=self._me,
            messages_list=[head],
            message_object_trees=[tree or get_object_tree(reply)],
            clientapp_runtime_list=[0.0],
        )
        return fleet_handlers.push_messages(request, self._link.state)

    def upload(self, session: str, object_id: str, content: bytes) -> bool:
        """Send an object; tell whether it was taken."""
        request = PushObjectRequest(
            node=self._me,
            run_id=self._link.run,
            object_id=object_id,
            object_content=content,
            session_id=session,
        )
        return bool(fleet_handlers.push_object(request, self._link.state).stored)

    def reply(self, reply: Message) -> None:
        """Send a whole reply, as an honest node does."""
        response = self.announce(reply)
        objects = get_all_nested_objects(reply)
        for name in response.objects_to_push:
            assert self.upload(response.session_id, name, objects[name].deflate())


def _emptied(reply: Message) -> Message:
    return Message(RecordDict(), reply_to=reply)


@cache
def _migrated() -> Path:
    """Return an empty database; Flower takes a second to lay one out."""
    folder = tempfile.mkdtemp(prefix="fedprompt-superlink-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder) / "state.db"
    objects = ObjectStoreFactory(str(path))
    LinkStateFactory(str(path), NoOpFederationManager(), objects).state()
    return path


@contextmanager
def superlink(folder: Path, monkeypatch: Any, *, guarded: bool = True) -> Iterator[SuperLink]:
    """Run a SuperLink, guarded as in a deployment or as Flower makes it."""
    for name in ("push_messages", "pull_object", "push_object", "confirm_message_received"):
        monkeypatch.setattr(fleet_handlers, name, getattr(fleet_handlers, name))
    for name in ("push_messages", "pull_messages"):
        monkeypatch.setattr(runtime_handlers, name, getattr(runtime_handlers, name))
    monkeypatch.setattr(sql_corestate, "HEARTBEAT_DEFAULT_INTERVAL", _LONG)  # of the ServerApp
    if guarded:
        sender_check.install(MOST)
    link = SuperLink(folder / "state.db")
    monkeypatch.setattr(TaskIdentity, "_run_id", link.run)
    monkeypatch.setattr(TaskIdentity, "_task_id", link.task.task_id)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    yield link
