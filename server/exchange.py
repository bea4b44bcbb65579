"""Send messages to sites and wait for their replies, with a deadline, on any Flower grid."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto  # not public; counts what the wire carries
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from server import inflation

_ROOM = 4  # times the bytes sent; a larger reply is not unpacked (F04)
LEAST_ROOM = 1 << 20  # bytes; the metadata of a small message is as large as the message
_DAMAGED = (  # what Flower's unpacking raises on bytes that no honest node sends
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError),
    DecodeError,
)
_FORGED = "the reply says that it answers another message than it was sent for"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5  # seconds between two looks for replies


@runtime_checkable
class MeasuringGrid(Protocol):
    """Say how many bytes a reply had, where the grid knows without serialising it again."""

    def size(self, reply: Message) -> int:
        """Return the bytes of a serialised reply."""


@dataclass(frozen=True)
class Answer:
    """Hold one reply and the node that was asked for it.

    A node that died is reported under another source id, so the asked node is taken from the
    message that was answered.
    """

    node: int
    message: Message
    size: int  # bytes of the serialised message


@dataclass(frozen=True)
class Traffic:
    """Count the bytes of an exchange as serialised messages: from the sites, to the sites."""

    up: int
    down: int

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.up + other.up, self.down + other.down)


def exchange(
    grid: Grid,
    contents: Mapping[int, RecordDict],
    kind: str,
    seconds: float,
    on_reply: Callable[[int], None] = lambda _: None,
    room: int = LEAST_ROOM,
) -> tuple[list[Answer], Traffic]:
    """Send each node its content and return what came back in time.

    Parameters
    ----------
    contents
        What to send, by node id; most often one object for all, which is then measured once.
    kind
        ``query``, ``train`` or ``evaluate``.
    seconds
        The deadline; the messages expire with it, so that no node works on them afterwards.
    on_reply
        Called with the number of replies so far.
    room
        Bytes that a reply may have, though it be many times what was sent.
    """
    messages = [
        Message(content, node, kind, ttl=seconds) for node, content in sorted(contents.items())
    ]
    kinds = {id(message.content): message for message in messages}  # alike but for the node id
    sizes = {content: _size(message) for content, message in kinds.items()}
    down = sum(sizes[id(message.content)] for message in messages)
    ids = list(grid.push_messages(messages))
    asked = {i: message for i, message in zip(ids, messages, strict=True) if i}
    answers = _collect(grid, asked, seconds, on_reply, room)
    return answers, Traffic(sum(answer.size for answer in answers), down)


def _collect(
    grid: Grid,
    asked: Mapping[str, Message],
    seconds: float,
    on_reply: Callable[[int], None],
    room: int,
) -> list[Answer]:
    waiting, answers, pause = set(asked), list[Answer](), _FIRST_PAUSE
    end = time.monotonic() + seconds
    while waiting:
        looked = time.monotonic()
        replies = list(_pull(grid, {i: asked[i] for i in sorted(waiting)}, end, room))
        answers += [answer for _, answer in replies]
        waiting -= {i for i, _ in replies}
        now = time.monotonic()
        if replies:
            on_reply(len(asked) - len(waiting))
            pause = _FIRST_PAUSE
        elif now >= end:
            break
        else:  # a look costs a request a site: sites must get a word in edgeways
            time.sleep(max(0.0, min(max(pause, now - looked), end - now)))
            pause = min(2 * pause, _LONGEST_PAUSE)
    return answers


def _pull(
    grid: Grid, asked: Mapping[str, Message], end: float, room: int
) -> Iterator[tuple[str, Answer]]:
    """Yield the replies that are there, each with the id of the message that it was pulled for.

    A reply from a network is unpacked here from what its sender wrote, and says itself which
    message it answers. Pulled one at a time, a damaged reply costs nobody else's, and none can pass
    for another node's: the SuperLink knows who sent what is stored for an id.
    """
    if isinstance(grid, MeasuringGrid):  # this process wrote the replies' envelopes itself
        for reply in grid.pull_messages(list(asked)):
            answers = reply.metadata.reply_to_message_id
            if answers in asked:
                yield answers, Answer(_node(asked[answers]), reply, grid.size(reply))
        return
    for message_id, message in asked.items():
        try:
            with inflation.at_most(max(room, _ROOM * _size(message)), end):
                replies = [(reply, _size(reply)) for reply in grid.pull_messages([message_id])]
        except _DAMAGED as error:
            reason = f"the reply is damaged: {type(error).__name__}: {error!s:.200}"
            replies = [(_refused(message, reason), 0)]
        for reply, size in replies[:1]:
            forged = reply.metadata.reply_to_message_id != message_id
            found = _refused(message, _FORGED) if forged else reply
            yield message_id, Answer(_node(message), found, size)


def _node(message: Message) -> int:
    return int(message.metadata.dst_node_id)


def _refused(message: Message, reason: str) -> Message:
    """Return what stands for a reply that is not looked into."""
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)


def _size(message: Message) -> int:
    return int(message_to_proto(message).ByteSize())
