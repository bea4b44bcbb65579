"""Send messages to sites and wait for their replies, with a deadline, on any Flower grid."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto  # not public; counts what the wire carries
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid  # not public

from server.rounds.inbox import Inbox

_ROOM = 4  # times the bytes sent; a larger reply is not unpacked (F04)
LEAST_ROOM = 1 << 20  # bytes; the metadata of a small message is as large as the message
LINGER = 30.0  # seconds that a message outlives its deadline: what has come by then is still read
_FORGED = "the reply says that it answers another message than it was sent for"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5  # seconds between two looks for replies
_LONGEST_LOOK = 5.0  # seconds; far below `LINGER`, so that no reply expires during one


class Fault(IntEnum):
    """Say in an error reply what this server found; Flower's own codes are below these."""

    WITHHELD = 1001  # announced by the deadline, and not whole
    TRESPASS = 1002  # the node reached for what is not its own


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
        The deadline. The messages live a little longer, so that a reply which is there by the
        deadline is read, whatever the reading of others takes; then they expire, and no node
        works on them any more.
    on_reply
        Called with the number of replies so far.
    room
        Bytes that a reply may have, though it be many times what was sent.
    """
    messages = [
        Message(content, node, kind, ttl=seconds + LINGER)
        for node, content in sorted(contents.items())
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
    source = _source(grid, asked, room)
    waiting, answers, pause = dict(asked), list[Answer](), _FIRST_PAUSE
    end = time.monotonic() + seconds
    while waiting:
        looked = time.monotonic()
        # what is heard of in the last look no longer expires
        replies = list(source.look(waiting, _LONGEST_LOOK if looked < end else math.inf))
        answers += [answer for _, answer in replies]
        for message_id, _ in replies:
            waiting.pop(message_id, None)
        if looked >= end:
            break
        if replies:
            on_reply(len(asked) - len(waiting))
            pause = _FIRST_PAUSE
            continue
        # a look costs a request: sites must get a word in edgeways
        now = time.monotonic()
        time.sleep(max(0.0, min(max(pause, now - looked), end - now)))
        pause = min(2 * pause, _LONGEST_PAUSE)
    return answers + list(source.close())


class _Source(Protocol):
    """Yield replies that are here, each with the id of the message that it was fetched for."""

    def look(self, waiting: Mapping[str, Message], seconds: float) -> Iterator[tuple[str, Answer]]:
        """Yield what came in answer to messages whose replies are waited for.

        What takes longer than ``seconds`` to read is left to the next look.
        """

    def close(self) -> Iterator[Answer]:
        """Yield what stands for the replies that were announced and are not whole."""


def _source(grid: Grid, asked: Mapping[str, Message], room: int) -> _Source:
    if isinstance(grid, HttpGrid):
        return _Network(grid, asked, room)
    return _ThisProcess(grid)


class _ThisProcess:
    """Take replies from a grid whose nodes hand over whole messages."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._size = grid.size if isinstance(grid, MeasuringGrid) else _size

    def look(
        self,
        waiting: Mapping[str, Message],
        seconds: float,  # noqa: ARG002 (no reply takes any)
    ) -> Iterator[tuple[str, Answer]]:
        for reply in self._grid.pull_messages(list(waiting)):
            answered = reply.metadata.reply_to_message_id
            if answered in waiting:
                yield answered, Answer(_node(waiting[answered]), reply, self._size(reply))

    def close(self) -> Iterator[Answer]:
        yield from ()


class _Network:
    """Take replies from a SuperLink, which stores what their senders wrote.

    A reply says itself which message it answers. None can pass for another node's: the SuperLink
    knows which node a message was for, and whose reply is stored for it.
    """

    def __init__(self, grid: HttpGrid, asked: Mapping[str, Message], room: int) -> None:
        self._asked = asked
        rooms = {name: max(room, _ROOM * _size(message)) for name, message in asked.items()}
        self._inbox = Inbox(grid, rooms)

    def look(self, waiting: Mapping[str, Message], seconds: float) -> Iterator[tuple[str, Answer]]:
        for name, reply in self._inbox.look(waiting, seconds):
            yield name, self._answer(self._asked[name], name, reply)

    def close(self) -> Iterator[Answer]:
        for name, arrival in self._inbox.arriving.items():
            detail = f"announced in {arrival.objects} parts, and not whole by the deadline"
            yield _refuse(self._asked[name], Fault.WITHHELD, detail)
        self._inbox.drop()

    def _answer(self, message: Message, name: str, reply: Message | Exception) -> Answer:
        if isinstance(reply, Exception):
            return _damaged(message, reply)
        if reply.metadata.reply_to_message_id != name:
            return _refuse(message, ErrorCode.UNKNOWN, _FORGED)
        try:
            return Answer(_node(message), reply, _size(reply))
        except Exception as error:  # values that no message can hold, which its parts can
            return _damaged(message, error)


def _node(message: Message) -> int:
    return int(message.metadata.dst_node_id)


def _damaged(message: Message, error: Exception) -> Answer:
    detail = f"the reply is damaged: {type(error).__name__}: {error!s:.200}"
    return _refuse(message, ErrorCode.UNKNOWN, detail)


def _refuse(message: Message, code: int, detail: str) -> Answer:
    """Return what stands for a reply that is not looked into."""
    return Answer(_node(message), Message(Error(code, detail), reply_to=message), 0)


def _size(message: Message) -> int:
    return int(message_to_proto(message).ByteSize())
