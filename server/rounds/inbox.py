"""Fetch replies from a SuperLink, each on its own: whole, too large, damaged, or not yet here.

A reply arrives as a tree of objects that its sender wrote: a message, records, arrays, chunks of
bytes, each named by its parent as often as the parent likes. Flower 1.42 asks for the objects of
one reply until they are there, for up to two hours, before it looks at the next, and unpacks what
it is told: one reply that is announced and never uploaded would hold up all others, and a chunk of
a few megabytes that is named a million times would end the server. Here each look takes what is
there and waits for nothing (F18), nor does it go on for long: each object is a request, and while
one reply is fetched others may expire unheard of. Objects are fetched as long as there is room for
them, and the size that a tree unpacks to is added up first, from the objects' heads alone (F03,
F04).

The client behind Flower's grid is not public; what is used of it is written down here.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid.http_grid import HttpGrid

Contents = Mapping[str, bytes]  # object id -> its head, a divider, its body
MOST_OBJECTS = 512  # of one reply; ours have dozens, and under 350 in the largest CLIP
_DIVIDER = b"\x00"  # between an object's head and body
_LEVELS = ("Message", "RecordDict", "ArrayRecord", "Array")  # a parent above its children


@dataclass
class Arrival:
    """Hold a reply that was announced, and as much of it as is here."""

    root: str
    objects: int
    missing: list[str]  # object ids
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0  # bytes that are here


class Inbox:
    """Hold what is on its way to this server in one exchange.

    Parameters
    ----------
    grid
        Flower's grid over a SuperLink.
    rooms
        The bytes that a reply may have, by the id of the message it answers.

    Attributes
    ----------
    arriving
        The replies that were announced and are not whole, by the id of the message they answer.
    """

    def __init__(self, grid: HttpGrid, rooms: Mapping[str, int]) -> None:
        self._client, self._node, self._run = grid._runtime_client, grid.node, grid.run.run_id
        self._rooms = rooms
        self.arriving: dict[str, Arrival] = {}

    def look(
        self, waiting: Collection[str], seconds: float
    ) -> Iterator[tuple[str, Message | Exception]]:
        """Yield the replies that are whole, or what is wrong with one, by the message answered.

        Parameters
        ----------
        waiting
            The ids of the messages whose replies are not here yet.
        seconds
            After these no more is fetched; what is announced keeps what of it is here.
        """
        response = self._client.PullMessages(PullAppMessagesRequest(message_ids=sorted(waiting)))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        for announced, tree in pairs:
            answered = announced.metadata.reply_to_message_id
            if answered in self._rooms:
                self.arriving.setdefault(answered, _arrival(announced.metadata.message_id, tree))
        until = time.monotonic() + seconds
        for answered in [name for name in self.arriving if name in waiting]:
            if (reply := self._receive(answered, until)) is not None:
                yield answered, reply

    def drop(self) -> None:
        """Let the SuperLink forget the replies that are not whole."""
        for arrival in self.arriving.values():
            self._confirm(arrival)
        self.arriving.clear()

    def _receive(self, answered: str, until: float) -> Message | Exception | None:
        """Return a reply, or what is wrong with it; None if it is not whole."""
        arrival, room = self.arriving[answered], self._rooms[answered]
        if arrival.objects > MOST_OBJECTS:
            return self._close(answered, ValueError(f"the reply has over {MOST_OBJECTS:,} objects"))
        while arrival.missing:
            if time.monotonic() > until:
                return None
            wanted = arrival.missing[-1]
            request = PullObjectRequest(node=self._node, run_id=self._run, object_id=wanted)
            response = self._client.PullObject(request)
            if not response.object_available:
                return None
            arrival.contents[arrival.missing.pop()] = response.object_content
            arrival.size += len(response.object_content)
            if arrival.size > room:
                return self._close(answered, ValueError(f"the reply has over {room:,} bytes"))
        try:
            return self._close(answered, unpack(arrival.root, arrival.contents, room))
        except (
            Exception
        ) as error:  # whatever a parser of outside bytes finds: this reply is damaged
            return self._close(answered, error)

    def _close(self, answered: str, reply: Message | Exception) -> Message | Exception:
        self._confirm(self.arriving.pop(answered))
        return reply

    def _confirm(self, arrival: Arrival) -> None:
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=self._run, message_object_id=arrival.root
            )
        )


def unpack(root: str, contents: dict[str, bytes], room: int) -> Message:
    """Return the message that a tree of objects holds.

    Raises
    ------
    Exception
        The tree is damaged, in one of the many ways that Flower's unpacking can fail, holds no
        message, or unpacks to more than ``room`` bytes.
    """
    if (size := unpacked_size(root, contents)) > room:
        raise ValueError(f"the reply unpacks to {size:,} bytes, expected at most {room:,}")
    message = inflate_object_from_contents(root, contents)
    if not isinstance(message, Message):
        raise TypeError(f"found {type(message).__name__} where a message belongs")
    message.metadata.__dict__["_message_id"] = root
    return message


def unpacked_size(object_id: str, contents: Contents) -> int:
    """Return the bytes that an object unpacks to, what it names counted as often as it is named.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError
        The tree is damaged, or an object stands where its kind does not belong.
    """
    return _size(object_id, contents, 0, {})


def _arrival(root: str, tree: ObjectTree) -> Arrival:
    names = list(dict.fromkeys(found.object_id for found in iterate_object_tree(tree)))
    return Arrival(root, len(names), names)


def _size(object_id: str, contents: Contents, level: int, known: dict[str, int]) -> int:
    if object_id in known:
        return known[object_id]
    head, divider, body = contents[object_id].partition(_DIVIDER)
    kind, listed, _ = head.decode().split(" ")
    children = listed.split(",") if listed else []
    if not divider or (kind in _LEVELS and _LEVELS.index(kind) < level):
        raise ValueError(f"found {kind[:20]!r} where its parent may not have it")
    total = len(body)
    if kind in _LEVELS:
        named = _named(kind, body, children)
        named += set(children) - set(named)  # unpacked too, if only to be refused
        total += sum(_size(child, contents, _LEVELS.index(kind) + 1, known) for child in named)
    known[object_id] = total
    return total


def _named(kind: str, body: bytes, children: list[str]) -> list[str]:
    """Return the children of an object, as often as its body names them."""
    if kind == "Message":
        return children[:1]
    if kind == "Array":
        return [children[place] for place in json.loads(body)["arraychunk_ids"]]
    return [str(child) for child in json.loads(body).values()]
