"""Allow a node to send and fetch its own messages only (F10, F15, F18).

Flower 1.42 checks the key of the node that a request comes from, and little of what it asks for. It
keeps the objects of all nodes and of the server in one store, under their hashes; whoever names a
hash first says which objects lie below it, though nobody has seen them, and whoever knows a hash
may fetch it or, of a message, have it deleted. One node could so break what others send, stop the
server at its next message, or read what another has sent.

Here a reply is kept apart until it is whole: each object has the hash that was announced for it and
lies above those that its tree says, the message is the one that was announced. Only then does
Flower's store learn of it, under the date of its question, so that nothing in there is a claim.
What is told to a node, and whether it must upload an object, depends on nothing that others sent.
A node fetches and confirms what was sent to it.

A node that reached for anything else is named in the audit, and its next reply is refused with
`server.exchange.Fault.TRESPASS`, which is a strike. The handlers that are replaced here are not
public.
"""

import logging
import threading

from flwr.app import Error
from flwr.app import Message as FlowerMessage
from flwr.common.constant import Status
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    PushMessagesRequest,
    PushMessagesResponse,
    Reconnect,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Message,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import LinkState
from flwr.server.superlink.utils import check_abort
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from server.deployment.upload import Peer, TrespassError, Upload
from server.rounds.exchange import Fault

_REMEMBERED = 64  # messages of a node; it works on one after the other
_OVER = [Status.PENDING, Status.STARTING, Status.FINISHED]  # a run in which nothing is taken

_log = logging.getLogger("fedprompt.audit")


class SenderCheck:
    """Check the messages between the nodes and one SuperLink.

    Parameters
    ----------
    most
        The bytes of one reply.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._peers: dict[int, Peer] = {}
        # whose messages passed here: in another, of an earlier life, nobody knows what is whose
        self._runs: set[int] = set()

    def _peer(self, node: int) -> Peer:
        return self._peers.setdefault(node, Peer())

    def push_questions(
        self, request: PushAppMessagesRequest, state: LinkState, task: Task
    ) -> PushAppMessagesResponse:
        """Accept the ServerApp's messages, and record which node may fetch which objects."""
        pairs = zip(request.messages_list, request.message_object_trees, strict=True)
        with self._lock:
            self._runs.add(task.run_id)
            for message, tree in pairs:
                objects = frozenset(found.object_id for found in iterate_object_tree(tree))
                sent = self._peer(message.metadata.dst_node_id).sent
                sent[message.metadata.message_id] = message, objects
                while len(sent) > _REMEMBERED:
                    sent.popitem(last=False)
        return _ask(request, state, task)

    def push_messages(self, request: PushMessagesRequest, state: LinkState) -> PushMessagesResponse:
        """Accept the announcement of a node's reply; return the objects still to be sent.

        Raises
        ------
        FlowerError
            The node is not the one to answer, or the tree is not the reply's; it is told 403, which
            is audited.
        """
        node = request.node.node_id
        if len(request.messages_list) != 1:
            raise _refusal(f"node {node} sent {len(request.messages_list)} replies at once")
        said = request.messages_list[0].metadata
        if check_abort(said.run_id, _OVER, state):
            return _push_messages(request, state)  # refuses it
        with self._lock:
            peer = self._peer(node)
            try:
                upload = self._announce(peer, request)
            except TrespassError as error:
                self._accuse(node, str(error), state)
                raise _refusal(f"node {node} {error}") from None
            if upload is None:  # too late: as Flower answers
                return _accepted(said.message_id, "", [])
            return _accepted(said.message_id, upload.session, upload.missing)

    def _announce(self, peer: Peer, request: PushMessagesRequest) -> Upload | None:
        """Return the upload that is begun, or gone on with; None if nobody waits for it."""
        node, said = request.node.node_id, request.messages_list[0].metadata
        if said.src_node_id != node:
            raise TrespassError(f"answered for {said.src_node_id}")
        if said.reply_to_message_id not in peer.sent:
            others = (other for name, other in self._peers.items() if name != node)
            if any(said.reply_to_message_id in other.sent for other in others):
                raise TrespassError("answered a message that was sent to another node")
            return None
        if len(request.message_object_trees) != 1:
            raise TrespassError("announced no tree, or several")
        before = peer.upload
        if before and before.announced == request:  # sent again after a lost connection
            return before
        if before:
            answered = before.message.metadata.reply_to_message_id
            if before.done and answered == said.reply_to_message_id:
                return None  # one reply counts
            before.close()
        peer.upload = Upload(request, peer.sent[said.reply_to_message_id][0], self._most)
        return peer.upload

    def push_object(self, request: PushObjectRequest, state: LinkState) -> PushObjectResponse:
        """Accept an object of an announced reply; store the reply once it is complete."""
        node = request.node.node_id
        if check_abort(request.run_id, _OVER, state):
            return _push_object(request, state)  # refuses it
        with self._lock:
            upload = self._peer(node).upload
            if upload is None or request.session_id not in ("", upload.session):
                others = [peer for name, peer in self._peers.items() if name != node]
                sessions = {peer.upload.session for peer in others if peer.upload}
                if request.session_id in sessions:
                    self._accuse(node, "sent an object of another node's reply", state)
                return PushObjectResponse(stored=False)
        with upload.lock:
            if upload.done and request.object_id in upload.children:
                return PushObjectResponse(stored=True)  # sent again after a lost connection
            try:
                upload.put(request.object_id, request.object_content)
            except TrespassError as error:
                with self._lock:
                    self._accuse(node, str(error), state)
                return PushObjectResponse(stored=False)
            if not upload.missing:
                _store(upload, state)
        return PushObjectResponse(stored=True)

    def pull_object(self, request: PullObjectRequest, state: LinkState) -> PullObjectResponse:
        """Return an object of a message that was sent to this node."""
        node = request.node.node_id
        with self._lock:
            owns = self._peer(node).owns(request.object_id)
        if owns or check_abort(request.run_id, _OVER, state):
            return _pull_object(request, state)
        with self._lock:
            if request.run_id in self._runs:
                self._accuse(node, "asked for an object that was not sent to it", state)
        return PullObjectResponse(object_found=False, object_available=False)

    def confirm_message_received(
        self, request: ConfirmMessageReceivedRequest, state: LinkState, store: ObjectStore
    ) -> ConfirmMessageReceivedResponse:
        """Accept a node's confirmation of a message that was sent to it."""
        node = request.node.node_id
        with self._lock:
            owns = request.message_object_id in self._peer(node).sent
        if owns or check_abort(request.run_id, _OVER, state):
            return _confirm(request, state, store)
        with self._lock:
            if request.run_id in self._runs:
                self._accuse(node, "confirmed a message that was not sent to it", state)
        return ConfirmMessageReceivedResponse()

    def pull_replies(
        self, request: PullAppMessagesRequest, state: LinkState, task: Task
    ) -> PullAppMessagesResponse:
        """Return the complete replies to the ServerApp, and the heads of the others."""
        wanted = set(request.message_ids)
        refused, announced = list[tuple[Message, ObjectTree]](), list[Upload]()
        with self._lock:
            for peer in self._peers.values():
                for name in wanted & peer.sent.keys() if peer.trespass else ():
                    refused.append(_refuse(peer.sent[name][0], peer.trespass, state))
                    peer.trespass = ""
                    wanted.remove(name)
                    break
                if peer.upload and not peer.upload.done:
                    announced.append(peer.upload)
        response = _pull_replies(PullAppMessagesRequest(message_ids=wanted), state, task)
        whole = {said.metadata.reply_to_message_id for said in response.messages_list}
        for message, tree in refused:
            response.messages_list.append(message)
            response.message_object_trees.append(tree)
        for upload in announced:
            if upload.message.metadata.reply_to_message_id in wanted - whole:
                response.messages_list.append(upload.message)
                response.message_object_trees.append(upload.tree)
        return response

    def _accuse(self, node: int, what: str, state: LinkState) -> None:
        """Name a node in the audit, once until its next reply, which is refused."""
        peer = self._peer(node)
        if peer.upload and not peer.upload.done:
            peer.upload.close()
            peer.upload = None
        if peer.trespass:
            return
        peer.trespass = what
        names = [found.name for found in state.get_node_info(node_ids=[node])]
        extra = {"event": "trespass", "node": node, "site": names[0] if names else ""}
        _log.warning("%s %s", extra["site"] or f"node {node}", what, extra=extra)


def _store(upload: Upload, state: LinkState) -> None:
    """Put a complete reply into Flower's store."""
    response = _push_messages(upload.stored, state)
    node, run = upload.announced.node, upload.message.metadata.run_id
    for object_id in response.objects_to_push:
        request = PushObjectRequest(node=node, run_id=run, object_id=object_id)
        request.object_content = upload.content(object_id)
        request.session_id = response.session_id
        _push_object(request, state)
    upload.done = True
    upload.close()


def _refuse(asked: Message, what: str, state: LinkState) -> tuple[Message, ObjectTree]:
    """Store an error in the place of a node's refused reply."""
    error = Error(Fault.TRESPASS, f"this site {what}")
    reply = FlowerMessage(error, reply_to=message_from_proto(asked))
    reply.metadata.__dict__["_message_id"] = reply.object_id
    tree = ObjectTree(object_id=reply.object_id)
    state.object_store.preregister(asked.metadata.run_id, tree)
    state.object_store.put(reply.object_id, reply.deflate())
    state.delete_messages({asked.metadata.message_id})
    return message_to_proto(reply), tree


def _accepted(message_id: str, session: str, wanted: list[str]) -> PushMessagesResponse:
    return PushMessagesResponse(
        reconnect=Reconnect(reconnect=5),
        results={message_id: 0},
        objects_to_push=wanted,
        session_id=session,
    )


def _refusal(reason: str) -> FlowerError:
    return FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, reason)


_push_messages, _push_object = fleet_handlers.push_messages, fleet_handlers.push_object
_pull_object, _confirm = fleet_handlers.pull_object, fleet_handlers.confirm_message_received
_ask, _pull_replies = runtime_handlers.push_messages, runtime_handlers.pull_messages


def install(most: int) -> None:
    """Check every message between nodes and server from now on, in this process.

    Parameters
    ----------
    most
        The bytes of one reply.
    """
    senders = SenderCheck(most)
    fleet_handlers.push_messages = senders.push_messages
    fleet_handlers.pull_object = senders.pull_object
    fleet_handlers.push_object = senders.push_object
    fleet_handlers.confirm_message_received = senders.confirm_message_received
    runtime_handlers.push_messages = senders.push_questions
    runtime_handlers.pull_messages = senders.pull_replies
