"""Keep a node's reply apart until it is complete and as announced (F18).

A reply is a tree of objects. Each object must have the hash that was announced for it and lie above
those that its tree names, and the message must be the announced one.
"""

import hashlib
import re
import tempfile
import threading
import uuid
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field

from flwr.proto.fleet_pb2 import (
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import (
    Message,
    ObjectTree,
)
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content as head_of,
)
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from fedprompt.errors import FedpromptError
from server.rounds.inbox import MOST_OBJECTS

_IN_MEMORY = 1 << 20  # bytes of a reply that is not whole; the rest is in a temporary file
_HASH = re.compile("[0-9a-f]{64}")
_OF_THE_QUESTION = ("run_id", "group_id", "message_type")  # what a reply has of its message
_DIVIDER = b"\x00"  # between an object's head and body


class TrespassError(FedpromptError):
    """A node did something that no node may do."""


@dataclass
class Upload:
    """An announced reply that is being received.

    Parameters
    ----------
    announced
        What the node sent first: the message's head and the tree of its objects.
    asked
        The head of the message that it answers.
    most
        The bytes it may have.

    Raises
    ------
    TrespassError
        The tree is not one of this message's, or the head not one of a reply to what was asked.
    """

    announced: PushMessagesRequest
    asked: Message
    most: int
    session: str = field(default_factory=lambda: str(uuid.uuid4()))
    done: bool = False

    def __post_init__(self) -> None:
        said, asked = self.message.metadata, self.asked.metadata
        if said.dst_node_id != asked.src_node_id or any(
            getattr(said, name) != getattr(asked, name) for name in _OF_THE_QUESTION
        ):
            raise TrespassError("announced a reply that is not to whom, or of the kind, asked")
        self.lock = threading.Lock()
        self.children: dict[str, frozenset[str]] = {}  # of each object
        for node in iterate_object_tree(self.tree):
            below = frozenset(child.object_id for child in node.children)
            if not _HASH.fullmatch(node.object_id):
                raise TrespassError("announced an object by what is no hash")
            if self.children.setdefault(node.object_id, below) != below:
                raise TrespassError("announced one object twice, with other objects below it")
        if self.tree.object_id != self.message.metadata.message_id:
            raise TrespassError("announced a tree that is not its message's")
        if len(self.children) > MOST_OBJECTS:
            raise TrespassError(f"announced over {MOST_OBJECTS:,} objects")
        self._places: dict[str, tuple[int, int]] = {}  # start and length
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed below)
        self.close = weakref.finalize(self, self._file.close)  # lets go of the objects

    @property
    def message(self) -> Message:
        """Return the message's head."""
        message: Message = self.announced.messages_list[0]
        return message

    @property
    def tree(self) -> ObjectTree:
        """Return the tree of its objects."""
        tree: ObjectTree = self.announced.message_object_trees[0]
        return tree

    @property
    def stored(self) -> PushMessagesRequest:
        """Return the announcement for Flower's store: no number in it is the node's.

        It holds a date and a duration, of the reply's own choice, and adds them up for every node
        at once; a NaN among them would end the run.
        """
        request = PushMessagesRequest()
        request.CopyFrom(self.announced)
        request.clientapp_runtime_list[:] = [0.0]
        metadata = request.messages_list[0].metadata
        metadata.created_at = self.asked.metadata.created_at
        metadata.ttl = self.asked.metadata.ttl
        return request

    @property
    def missing(self) -> list[str]:
        """Return the ids of the objects that have not been received."""
        return [] if self.done else [name for name in self.children if name not in self._places]

    def put(self, object_id: str, content: bytes) -> None:
        """Receive an object.

        Raises
        ------
        TrespassError
            It is not what was announced.
        """
        if object_id not in self.children:
            raise TrespassError("sent an object that it had not announced")
        if hashlib.sha256(content).hexdigest() != object_id:
            raise TrespassError("sent an object that has not the hash it was announced by")
        try:
            kind, below, _ = head_of(content)
        except ValueError:
            raise TrespassError("sent what is no object") from None
        if frozenset(below) != self.children[object_id]:
            raise TrespassError("announced an object with other objects below it than it has")
        if (kind == "Message") != (object_id == self.tree.object_id):
            raise TrespassError("sent a message within a message, or none")
        if kind == "Message" and not self._is_announced(content):
            raise TrespassError("announced another message than it sent")
        if object_id not in self._places:
            start = self._file.seek(0, 2)
            if start + len(content) > self.most:
                raise TrespassError(f"sent a reply of over {self.most:,} bytes")
            self._file.write(content)
            self._places[object_id] = start, len(content)

    def content(self, object_id: str) -> bytes:
        """Return an object that was received."""
        start, length = self._places[object_id]
        self._file.seek(start)
        return self._file.read(length)

    def _is_announced(self, content: bytes) -> bool:
        announced = Message()
        announced.CopyFrom(self.message)
        announced.metadata.message_id = ""
        announced.ClearField("content")
        try:
            return bool(Message.FromString(content.partition(_DIVIDER)[2]) == announced)
        except Exception:  # whatever a parser of outside bytes finds
            return False


@dataclass
class Peer:
    """The messages sent to one node, and the reply it is sending."""

    # what it was asked, by the message's id: the head, and the ids of the objects
    sent: OrderedDict[str, tuple[Message, frozenset[str]]] = field(default_factory=OrderedDict)
    upload: Upload | None = None
    trespass: str = ""  # what its next reply is refused for

    def owns(self, object_id: str) -> bool:
        """Return whether an object is part of a message sent to this node."""
        return any(object_id in objects for _, objects in self.sent.values())
