"""Run the service in this process until it is told to stop."""

import logging
import math
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from types import FrameType

import uvicorn

from export.runtime.serving.app import make_app
from export.runtime.serving.connections import timed
from export.runtime.serving.service import Service
from fedprompt.errors import FedpromptError
from fedprompt.protocol import address

_log = logging.getLogger("export.serving")


def run(service: Service, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; what is in work is answered first.

    Raises
    ------
    FedpromptError
        The address cannot be listened on.
    """
    server = uvicorn.Server(configured(service))
    with listening(host, port) as doors, _signals_end(server):
        url = f"http://{address.join(host, port)}"
        _log.info("serving on %s", url, extra={"event": "serving", "port": port})
        if not address.is_loopback(host):
            _log.warning("others can reach this address: it asks for no password and has no TLS")
        server.run(sockets=doors)
        _log.info("stopped", extra={"event": "stopped"})


def configured(service: Service) -> uvicorn.Config:
    """Return how uvicorn serves it."""
    return uvicorn.Config(
        make_app(service),
        loop="asyncio",
        http=timed(service.limits),  # on h11, with and without uvicorn's own extras
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(service.limits.seconds) + 1,
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen on every address of a host.

    Raises
    ------
    FedpromptError
        It is taken, not ours, or no address.
    """
    try:
        doors = address.listen(host, port)
    except OSError as error:
        raise FedpromptError(
            f"{address.join(host, port)} cannot be listened on: {error.strerror}; give another "
            "--address"
        ) from error
    with ExitStack() as stack:
        for door in doors:
            stack.enter_context(door)
        yield doors


@contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Let a signal end the server and no more than that: to be stopped is no failure.

    uvicorn listens itself while it runs, and raises again what it ended on; what comes before it
    listens counts as well.
    """
    if current_thread() is not main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
