"""Callers that send nothing, half of something, or one byte after the other, over real sockets."""

import asyncio
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn

from export.runtime import Classifier
from export.runtime.serving.connections import TimedProtocol, timed
from export.runtime.serving.limits import Limits
from export.runtime.serving.run import configured, listening
from export.runtime.serving.service import Service

from .conftest import Door
from .test_app import Held

PATIENCE = 60.0  # seconds until a test counts as hung
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
)
NOT_READ = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def enough_files() -> Iterator[None]:
    """Let this process hold both ends of 500 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def serving(service: Service) -> Iterator[int]:
    """Serve in a thread of this process and yield the port."""
    server = uvicorn.Server(configured(service))
    with listening("127.0.0.1", 0) as doors:
        port = doors[0].getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": doors})
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def served(classifier: Classifier) -> Iterator[Callable[..., int]]:
    with ExitStack() as stack:

        def start(**limits: Any) -> int:
            return stack.enter_context(serving(Service(classifier, Limits(**limits))))

        yield start


def call(port: int, count: int, sent: bytes = b"") -> list[socket.socket]:
    """Open connections that send something and no more."""
    callers = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(count)]
    for caller in callers:
        caller.sendall(sent)
    return callers


def is_closed(caller: socket.socket) -> bool:
    """Wait until the other side has closed a connection, whatever it says before."""
    with suppress(ConnectionError):
        while caller.recv(65536):
            pass
    return True


def predict(port: int, png: bytes) -> int:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        url, headers = f"http://127.0.0.1:{port}/predict", {"content-type": "image/png"}
        return client.post(url, content=png, headers=headers).status_code


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"GET /hea", HEAD[:-2]], ids=["none", "one", "half", "most"]
)
def test_two_hundred_heads_that_do_not_come_are_closed(
    served: Callable[..., int], sent: bytes
) -> None:
    port = served(head_seconds=0.2)
    for caller in call(port, 200, sent):
        with caller:
            assert is_closed(caller)


@pytest.mark.parametrize("begin", [b"GET /", NOT_READ], ids=["head", "body after its answer"])
def test_bytes_that_drip_in_buy_no_time(served: Callable[..., int], begin: bytes) -> None:
    port = served(head_seconds=0.2)
    [caller] = call(port, 1, begin)
    end = time.monotonic() + PATIENCE
    with caller, suppress(ConnectionError):
        while time.monotonic() < end:  # each byte long before the time is over
            caller.sendall(b"a")
            time.sleep(0.02)
        pytest.fail("the connection was never closed")


@pytest.mark.parametrize("count", [32, 500])
@pytest.mark.parametrize(
    "sent", [b"", b"GET /hea", HEAD, HEAD + b"x" * 900], ids=["idle", "half", "head", "body"]
)
def test_callers_that_wait_lock_nobody_out(
    served: Callable[..., int], png: bytes, count: int, sent: bytes
) -> None:
    port = served(head_seconds=3600, seconds=3600)
    callers = call(port, count, sent)
    assert predict(port, png) == 200
    for caller in callers:
        caller.close()


def test_the_caller_that_has_waited_longest_gives_way(
    served: Callable[..., int], png: bytes
) -> None:
    port = served(head_seconds=3600, seconds=3600, connections=8)
    first, second, *others = call(port, 8, HEAD)
    assert predict(port, png) == 200
    assert is_closed(first)
    second.setblocking(False)
    with pytest.raises(BlockingIOError):
        second.recv(1)
    for caller in (first, second, *others):
        caller.close()


def test_who_sends_nothing_gives_way_before_a_body_that_is_on_its_way(
    served: Callable[..., int], png: bytes
) -> None:
    port = served(head_seconds=3600, seconds=3600, connections=4)
    [body] = call(port, 1, HEAD + b"x" * 900)
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        while "bodies_arriving 1.0" not in client.get(f"http://127.0.0.1:{port}/metrics").text:
            pass
    idle = call(port, 20)
    assert predict(port, png) == 200
    body.sendall(b"x" * 100)
    assert body.recv(65536).startswith(b"HTTP/1.1 422 ")
    for caller in (body, *idle):
        caller.close()


def test_a_request_in_work_does_not_give_way(
    classifier: Classifier, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(classifier, Limits(head_seconds=3600, connections=1))
    held = Held(Door(service), monkeypatch)
    with serving(service) as port:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(predict(port, png)))
        thread.start()
        assert held.entered.wait(PATIENCE)
        [late] = call(port, 1)
        assert is_closed(late)  # the only one that waits
        late.close()
        held.release.set()
        thread.join(PATIENCE)
    assert found == [200]


def test_bodies_that_fill_the_memory_give_way(served: Callable[..., int], png: bytes) -> None:
    port = served(seconds=3600, max_bytes=1000, requests=2, head_seconds=3600)
    callers = call(port, 5, HEAD + b"x" * 900)
    waiting = set(callers)
    while len(waiting) > 2:  # of the largest size may be there
        for caller in select.select(waiting, [], [], PATIENCE)[0]:
            assert caller.recv(65536).startswith(b"HTTP/1.1 408 ")
            waiting.remove(caller)
    assert predict(port, png) == 200
    for caller in callers:
        caller.close()


READING_NOTHING = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000  # 10 MB of answers


def ask_and_read_nothing(port: int, count: int) -> list[socket.socket]:
    """Open connections on which answers pile up; each begins with one that nobody takes."""
    callers = []
    for _ in range(count):
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", port))
        callers.append(caller)
        caller.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            caller.send(READING_NOTHING)
    return callers


def test_callers_that_take_no_answer_lock_nobody_out(
    served: Callable[..., int], png: bytes
) -> None:
    port = served(head_seconds=3600, connections=4)
    callers = ask_and_read_nothing(port, 4)
    end, found = time.monotonic() + PATIENCE, 0
    while found != 200 and time.monotonic() < end:  # until what nobody takes has filled its buffers
        with suppress(httpx.TransportError):
            found = predict(port, png)
    for caller in callers:
        caller.close()
    assert found == 200


class Line:
    """Stand in for a connection's transport."""

    def __init__(self) -> None:
        self.sent, self.is_aborted = b"", False

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_extra_info(self, _: str) -> None: ...
    def close(self) -> None: ...
    def resume_reading(self) -> None: ...
    def pause_reading(self) -> None: ...


def test_the_clock_runs_outside_of_requests_only(door: Door) -> None:
    """One deadline from the connection, or the answer before, to the whole head."""
    told: list[str] = []

    async def application(_: Any, receive: Any, send: Any) -> None:
        told.append("called")
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        told.append("answered")

    async def scene() -> None:
        config = uvicorn.Config(
            application, http=timed(Limits(head_seconds=3600)), ws="none", lifespan="off"
        )
        config.load()
        protocol = timed(Limits(head_seconds=3600))(config, uvicorn.server.ServerState(), {})
        assert isinstance(protocol, TimedProtocol)
        protocol.connection_made(Line())  # type: ignore[arg-type]
        first = protocol._deadline
        assert first is not None
        assert first.when() == pytest.approx(protocol.waiting_since + 3600)
        for _ in range(2):
            before = protocol._deadline
            for byte in HEAD[:-1]:
                protocol.data_received(bytes([byte]))
                assert protocol._deadline is before  # a drip buys no time
            protocol.data_received(HEAD[-1:])
            assert protocol._deadline is None
            assert protocol.waits  # for the body, which the application times
            protocol.data_received(b"x" * 1000)
            assert protocol._deadline is None
            assert not protocol.waits
            while told[-1:] != ["answered"]:
                await asyncio.sleep(0)
            told.clear()
            assert protocol._deadline is not None
            assert protocol._deadline is not before  # the next head has a time of its own
            assert protocol.waits
        last = protocol._deadline
        protocol.connection_lost(None)
        assert last.cancelled()
        assert first.cancelled()

    asyncio.run(scene())


def test_an_answer_that_is_not_taken_has_a_deadline() -> None:
    async def application(_: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def scene() -> None:
        limits = Limits(head_seconds=3600)
        config = uvicorn.Config(application, http=timed(limits), ws="none", lifespan="off")
        config.load()
        protocol = timed(limits)(config, uvicorn.server.ServerState(), {})
        assert isinstance(protocol, TimedProtocol)
        protocol.connection_made(Line())  # type: ignore[arg-type]
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert protocol._deadline is None  # the application keeps the time
        assert not protocol.gives_way
        for _ in range(2):
            protocol.pause_writing()
            assert protocol._deadline is not None
            assert protocol.gives_way
            protocol.resume_writing()
            assert protocol._deadline is None
            assert not protocol.gives_way
        protocol.connection_lost(None)

    asyncio.run(scene())
