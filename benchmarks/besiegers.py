"""Be hostile sites: ``python -m benchmarks.besiegers SECONDS ATTACK=FOLDER ...``.

Each folder is an enrolled site's. It answers as an honest one does, with a key and images of its
own, but for what its attack changes; the border and the policy of a real site do not bind it.
"""

import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import push_objects

from benchmarks.fleet import Node, RunSettings, live
from client.deployment.site_folder import SiteFolder
from fedprompt.processes import logs, parent_watchdog
from fedprompt.wire import ARRAYS, IDENTITY, METRICS

Send = Callable[[Message, ObjectTree, float], tuple[set[str], str]]
Push = Callable[[int, str, str, bytes], None]
BILLIONS = 10**15  # images that a site says it has
HUGE = 1e308  # a loss that is finite


class Withholder(Node):
    """Announce every update and score, and never send them."""

    def _send(self, reply: Message, run: int, send: Send, push: Push) -> None:
        if _kind(reply) == "query":
            super()._send(reply, run, send, push)
        else:
            reply.metadata.__dict__["_message_id"] = reply.object_id
            send(reply, get_object_tree(reply), 0.0)


class Screamer(Node):
    """Report a loss that overflows every mean it enters."""

    def _answer(self, message: Message, node: int, settings: dict[str, Any]) -> Message:
        reply = super()._answer(message, node, settings)
        return _with_metrics(reply, loss=HUGE) if _kind(reply) != "query" else reply


class Heavyweight(Node):
    """Claim more images than all others have, and send the prompt back as it came."""

    def _answer(self, message: Message, node: int, settings: dict[str, Any]) -> Message:
        reply = super()._answer(message, node, settings)
        if reply.has_error():
            return reply
        if _kind(reply) == "query":
            card = ConfigRecord(
                {**reply.content.config_records[IDENTITY], "num-examples": BILLIONS}
            )
            return Message(RecordDict({IDENTITY: card}), reply_to=message)
        if _kind(reply) == "train":
            reply.content[ARRAYS] = _unmoved(message, reply)
            return _with_metrics(reply, **{"num-examples": BILLIONS})
        return _with_metrics(reply, **{"num-examples": BILLIONS, "correct": 0})


class Replayer(Node):
    """Send the first update again and again."""

    first: RecordDict | None = None

    def _answer(self, message: Message, node: int, settings: dict[str, Any]) -> Message:
        reply = super()._answer(message, node, settings)
        if _kind(reply) != "train" or reply.has_error():
            return reply
        self.first = self.first or reply.content
        return Message(self.first, reply_to=message)


class Claimant(Node):
    """Name the prompt that the server will send next, with a false object below it."""

    _claimed = ""

    def _send(self, reply: Message, run: int, send: Send, push: Push) -> None:
        if _kind(reply) == "query" or not self._claimed:
            super()._send(reply, run, send, push)
            return
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree = get_object_tree(reply)
        below = [ObjectTree(object_id="0" * 64)]
        tree.children.append(ObjectTree(object_id=self._claimed, children=below))
        _, session = send(reply, tree, 0.0)
        push_objects(get_all_nested_objects(reply), functools.partial(push, run, session))

    def _answer(self, message: Message, node: int, settings: dict[str, Any]) -> Message:
        if _kind(message) == "evaluate":  # the next round begins with the same arrays
            self._claimed = message.content[ARRAYS].object_id
        return super()._answer(message, node, settings)


ATTACKS: dict[str, type[Node]] = {
    "announce-only": Withholder,
    "huge-loss": Screamer,
    "weight-claim": Heavyweight,
    "replay": Replayer,
    "id-claim": Claimant,
}


def _kind(message: Message) -> str:
    return message.metadata.message_type.partition(".")[0]


def _unmoved(message: Message, reply: Message) -> ArrayRecord:
    """Return what a site that learned nothing sends: the prompt as it came, an update of zero."""
    got, sent = message.content.array_records[ARRAYS], reply.content.array_records[ARRAYS]
    return ArrayRecord(
        {
            name: got[name] if name in got else Array(a.dtype, a.shape, a.stype, bytes(len(a.data)))
            for name, a in sent.items()
        }
    )


def _with_metrics(reply: Message, **changed: float) -> Message:
    if reply.has_content():
        reply.content[METRICS] = MetricRecord({**reply.content.metric_records[METRICS], **changed})
    return reply


def main(poll: float, attackers: list[str]) -> None:
    """Attack until this process is ended."""
    parent_watchdog.watch_stdin()
    logs.configure(None)
    runs, turn = RunSettings(), threading.Lock()
    pairs = [text.partition("=")[::2] for text in attackers]
    live([ATTACKS[name](SiteFolder(Path(folder)), runs, turn, poll) for name, folder in pairs])


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
