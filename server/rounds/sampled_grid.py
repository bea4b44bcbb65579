"""Show a strategy only the nodes that were chosen for a round."""

from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class ChosenGrid(Grid):
    """Answer ``get_node_ids`` with a fixed choice, so that any strategy "samples" all of it.

    Flower's strategies sample with the global generator and wait for nodes without a deadline;
    behind this view neither matters. Nothing is sent through it, except by ``carry``, which a
    protocol of several exchanges brings along.
    """

    def __init__(
        self,
        nodes: Sequence[int],
        run: Run,
        carry: Callable[[Sequence[Message]], list[Message]] | None = None,
    ) -> None:
        self._nodes = list(nodes)
        self._carry = carry
        self._run = run

    def set_run(self, run: Run) -> None:
        """Set the run this grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run this grid operates in."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Return the chosen nodes."""
        return list(self._nodes)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message; part of Flower's interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: a strategy plans a round, the loop sends it."""
        raise NotImplementedError("the round loop sends the messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: a strategy plans a round, the loop collects the replies."""
        raise NotImplementedError("the round loop collects the replies")

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002 (Flower's interface)
    ) -> Iterable[Message]:
        """Let the protocol carry the messages; refuse where there is none: the loop sends."""
        if self._carry:
            return self._carry(list(messages))
        raise NotImplementedError("the round loop sends the messages")
