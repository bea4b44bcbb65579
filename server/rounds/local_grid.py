"""Run sites inside this process behind Flower's Grid: no sockets, no processes, no start-up.

Every message goes through Flower's serialisation both ways, so a site sees exactly what it would
see over a network. Nodes are handled one message at a time, by ``workers`` threads in a fixed
order. ``flwr.app`` and ``flwr.serverapp`` are public; the serialiser, ``Run`` and
``TaskIdentity`` (which every ``Message`` reads) are not, and have no public counterpart.
"""

import itertools
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing.pool import AsyncResult, ThreadPool
from types import TracebackType

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedprompt.errors import FedpromptError

_log = logging.getLogger(__name__)
_FIRST_NODE = 1000  # nodes are numbered from here, in the order of their partitions
_PULL_WAIT = 0.05  # seconds a pull waits for its replies, so that callers need not spin


class LocalGrid(Grid):
    """Hold the sites of a simulation and hand messages to one ClientApp.

    Parameters
    ----------
    client
        The app every site runs.
    sites
        How many; site ``i`` gets ``partition-id`` i.
    run_config
        What the app finds in its context.
    workers
        Threads that run sites at the same time.
    """

    def __init__(
        self,
        client: ClientApp,
        sites: int,
        run_config: Mapping[str, str | int | float | bool],
        workers: int = 1,
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
        self._client = client
        self._run = Run.create_empty(1)
        self._contexts = {
            _FIRST_NODE + i: Context(
                1,
                _FIRST_NODE + i,
                UserConfig({"partition-id": i, "num-partitions": sites}),
                RecordDict(),
                UserConfig(run_config),
            )
            for i in range(sites)
        }
        self._locks = {node: threading.Lock() for node in self._contexts}
        self._ids = itertools.count(1)
        self._threads = ThreadPool(workers)  # daemons: a site that hangs keeps no process alive
        self._pending: dict[str, AsyncResult[bytes]] = {}
        self._expiry: dict[str, float] = {}  # monotonic; nobody asks for the reply afterwards
        self._sizes: dict[str, int] = {}  # of pulled replies, by the message they answer

    def __enter__(self) -> "LocalGrid":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the threads without waiting for a site that hangs."""
        self._threads.terminate()

    def set_run(self, run: Run) -> None:
        """Set the run this grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run this grid operates in."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a site; part of Flower's interface, as old as its strategies."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' node ids, by partition."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages for their sites and return the ids to pull replies with."""
        self._forget()
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, in the order of the ids; wait briefly for all."""
        asked = {i: self._pending[i] for i in message_ids if i in self._pending}
        end = time.monotonic() + _PULL_WAIT
        for pending in asked.values():
            pending.wait(max(0.0, end - time.monotonic()))
        replies = []
        for i in [i for i, pending in asked.items() if pending.ready()]:
            data = self._pending.pop(i).get()
            self._sizes[i] = len(data)
            del self._expiry[i]
            replies.append(_from_bytes(data))
        return replies

    def size(self, reply: Message) -> int:
        """Return the bytes of a reply on the wire, once."""
        return self._sizes.pop(reply.metadata.reply_to_message_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and pull their replies until all are there or the time is over."""
        ids = list(self.push_messages(messages))
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        replies: list[Message] = []
        while len(replies) < len(ids) and time.monotonic() < end:
            replies += self.pull_messages(ids)
        return replies

    def _push(self, message: Message) -> str:
        name = f"message-{next(self._ids):012d}"  # one width: equal runs count equal bytes
        message.metadata.__dict__["_message_id"] = name  # as Flower's grids do; it has no setter
        data = message_to_proto(message).SerializeToString()
        # by the monotonic clock: a step of the wall clock must not spend a message's time (F34)
        self._expiry[name] = time.monotonic() + message.metadata.ttl
        self._pending[name] = self._threads.apply_async(self._deliver, (data, self._expiry[name]))
        return name

    def _forget(self) -> None:
        """Drop replies that came too late to be pulled, and sizes that nobody asked for."""
        self._sizes.clear()
        for name in [name for name, end in self._expiry.items() if end < time.monotonic()]:
            if self._pending[name].ready():
                del self._pending[name], self._expiry[name]

    def _deliver(self, data: bytes, expiry: float) -> bytes:
        message = _from_bytes(data)
        node = message.metadata.dst_node_id
        with self._locks[node]:
            if time.monotonic() > expiry:
                return _error(message, ErrorCode.MESSAGE_UNAVAILABLE, "the message expired")
            return self._answer(message, self._contexts[node])

    def _answer(self, message: Message, context: Context) -> bytes:
        """Return the site's reply; what it raises becomes an error reply, as in Flower."""
        try:
            return _to_bytes(self._client(message, context), message)
        except Exception as error:  # any fault of a site is that site's, never the server's
            # an error of our own says all in its message
            site = context.node_config["partition-id"]
            if isinstance(error, FedpromptError):
                _log.warning("site %s: %s", site, error)
            else:
                _log.warning("site %s raised", site, exc_info=error)
            reason = f"{type(error)}:<'{error}'>"
            return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)


def _error(message: Message, code: int, reason: str) -> bytes:
    return _to_bytes(Message(Error(code, reason), reply_to=message), message)


def _to_bytes(reply: Message, message: Message) -> bytes:
    reply.metadata.__dict__["_message_id"] = f"reply-to-{message.metadata.message_id}"
    return bytes(message_to_proto(reply).SerializeToString())


def _from_bytes(data: bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(data))
