"""Close connections that keep the service waiting; uvicorn times only those between two requests.

Outside a request, from its head to its answer, a connection has `Limits.head_seconds`: to send the
next head whole, however slowly it drips in, or to take the answer and end a body that was not read.
Inside, the application keeps the time, except while an answer waits for a caller who takes none of
it: each such pause is of `Limits.head_seconds` at most. Of more than `Limits.connections`
one that waits for its caller gives way to the new one, so that idle callers lock nobody out: first
one without a request, then one whose body is on its way or whose answer is not taken, each time the
one that has waited longest.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from export.runtime.serving.limits import Limits


def timed(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol for HTTP/1.1, within the limits."""

    class Timed(TimedProtocol):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.limits = limits

    return Timed


class TimedProtocol(H11Protocol):
    """One connection of a caller."""

    limits: Limits
    waiting_since = 0.0  # seconds on the loop's clock
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time, and make room if there are too many."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        self._stop()

    def data_received(self, data: bytes) -> None:
        """Stop the clock if a head is whole now."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Give the next head its time."""
        super().on_response_complete()
        self._stop()
        self._watch()

    def pause_writing(self) -> None:
        """Give a caller who does not take an answer its time."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Stop the clock: the caller takes its answer."""
        super().resume_writing()
        self._watch()

    def _make_room(self) -> None:
        others = [c for c in self.connections if isinstance(c, TimedProtocol) and c is not self]
        idle = [c for c in others if not c._answering]
        waiting = idle or [c for c in others if c.gives_way] or [self]
        min(waiting, key=lambda connection: connection.waiting_since).transport.abort()

    @property
    def waits(self) -> bool:
        """Whether the caller is the one who has something to do."""
        return not self._answering or self.cycle.more_body

    @property
    def gives_way(self) -> bool:
        """Whether its place may be another's: it waits, or the caller does not take the answer."""
        return self.waits or self.flow.write_paused

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        if self._answering and not self.flow.write_paused:
            self._stop()
        elif self._deadline is None:
            self.waiting_since = self.loop.time()
            self._deadline = self.loop.call_later(self.limits.head_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
