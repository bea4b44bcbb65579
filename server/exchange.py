"""Send messages to sites and wait for their replies, with a deadline, on any Flower grid."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto  # not public; counts what the wire carries
from flwr.serverapp import Grid

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
) -> tuple[list[Answer], Traffic]:
    """Send each node its content and return what came back in time.

    Parameters
    ----------
    contents
        What to send, by node id; the same to everyone, as far as its size goes.
    kind
        ``query``, ``train`` or ``evaluate``.
    seconds
        The deadline; the messages expire with it, so that no node works on them afterwards.
    on_reply
        Called with the number of replies so far.
    """
    messages = [
        Message(content, node, kind, ttl=seconds) for node, content in sorted(contents.items())
    ]
    down = _size(messages[0]) * len(messages) if messages else 0  # all alike but for the node id
    ids = list(grid.push_messages(messages))
    nodes = {i: m.metadata.dst_node_id for i, m in zip(ids, messages, strict=True) if i}
    answers = _collect(grid, nodes, seconds, on_reply)
    return answers, Traffic(sum(answer.size for answer in answers), down)


def _collect(
    grid: Grid, nodes: Mapping[str, int], seconds: float, on_reply: Callable[[int], None]
) -> list[Answer]:
    waiting, answers, pause = set(nodes), list[Answer](), _FIRST_PAUSE
    measure = grid.size if isinstance(grid, MeasuringGrid) else _size
    end = time.monotonic() + seconds
    while waiting:
        replies = [(m, m.metadata.reply_to_message_id) for m in grid.pull_messages(list(waiting))]
        answers += [Answer(nodes[to], m, measure(m)) for m, to in replies if to in nodes]
        waiting -= {to for _, to in replies}
        if replies:
            on_reply(len(nodes) - len(waiting))
            pause = _FIRST_PAUSE
        elif time.monotonic() >= end:
            break
        else:
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
    return answers


def _size(message: Message) -> int:
    return int(message_to_proto(message).ByteSize())
