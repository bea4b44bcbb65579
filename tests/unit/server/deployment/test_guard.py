"""The guard before a toy application, which notes what reached it."""

import asyncio
import logging

import pytest

from server.deployment.guard import Guard

PUBLIC, CONTROL = 9092, 9093
LIMIT = 1000


class Toy:
    """Read a whole body and answer with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status, self.reached = status, []

    async def __call__(self, scope, receive, send) -> None:
        body = b""
        while scope["type"] == "http":
            event = await receive()
            if event["type"] == "http.disconnect":
                self.reached.append((scope["path"], "cut", len(body)))
                return
            body += event["body"]
            if not event.get("more_body"):
                break
        self.reached.append((scope.get("path"), "whole", len(body)))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def ask(toy, path="/v1/fleet/ping", port=PUBLIC, chunks=(b"",), length=None, kind="http"):
    """Send one request; return what the guard let out."""
    headers = [] if length is None else [(b"content-length", length)]
    scope = {
        "type": kind, "path": path, "server": ("127.0.0.1", port), "client": ("192.0.2.7", 5),
        "headers": headers,
    }  # fmt: skip
    events = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks)}
        for i, chunk in enumerate(chunks)
    ]
    sent = []

    async def receive():
        return events.pop(0)

    async def send(event):
        sent.append(event)

    asyncio.run(Guard(toy, PUBLIC, LIMIT)(scope, receive, send))
    return [event["status"] for event in sent if "status" in event]


def test_the_fleet_api_is_open_to_sites():
    toy = Toy()
    assert ask(toy, chunks=[b"x" * 600, b"x" * 400]) == [200]
    assert toy.reached == [("/v1/fleet/ping", "whole", 1000)]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/control/start-run", "/v1/runtime/pull-object", "/v1/fleetx", "/v1/fleet",
     "/V1/FLEET/ping", "//v1/fleet/ping", "/health", "/docs", "/openapi.json"],
)  # fmt: skip
def test_F15_everything_else_is_no_door_and_is_audited(path, caplog):
    toy = Toy()
    assert ask(toy, path) == [404]
    assert toy.reached == []
    (line,) = caplog.records
    assert (line.name, line.event, line.peer, line.path, line.status) == (
        "fedprompt.audit", "refused", "192.0.2.7", path, 404,
    )  # fmt: skip


def test_the_control_port_passes_everything():
    toy = Toy()
    assert ask(toy, "/v1/control/start-run", CONTROL, [b"x" * (LIMIT + 1)]) == [200]
    assert toy.reached == [("/v1/control/start-run", "whole", LIMIT + 1)]


def test_the_applications_life_is_not_looked_at():
    assert ask(Toy(), kind="lifespan") == [200]


def test_F15_sites_speak_http_and_nothing_else(caplog):
    toy = Toy()
    assert ask(toy, kind="websocket") == []
    assert toy.reached == []
    assert caplog.records[0].event == "refused"


def test_F04_a_body_that_says_it_is_too_large_is_not_read(caplog):
    toy = Toy()
    assert ask(toy, length=b"1001", chunks=[b"x" * 1001]) == [413]
    assert toy.reached == []
    assert caplog.records[0].status == 413


@pytest.mark.parametrize("length", [None, b"1", b"-1", b"nonsense", b""])
def test_F04_a_body_that_grows_past_the_cap_is_cut(length, caplog):
    toy = Toy()
    assert ask(toy, length=length, chunks=[b"x" * 600, b"x" * 400, b"x", b"x" * 10**6]) == []
    assert toy.reached == [("/v1/fleet/ping", "cut", 1000)]
    assert [line.status for line in caplog.records] == [413]


@pytest.mark.parametrize("status", [401, 403])
def test_F15_what_flower_refuses_is_audited(status, caplog):
    assert ask(Toy(status)) == [status]
    (line,) = caplog.records
    assert (line.event, line.status, line.levelno) == ("refused", status, logging.WARNING)


def test_what_flower_grants_is_not(caplog):
    ask(Toy(200))
    ask(Toy(500))
    assert caplog.records == []


def test_a_path_cannot_forge_or_flood_the_audit(caplog):
    ask(Toy(), "/x\n2026 refused 192.0.2.1" + "y" * 10**5)
    assert len(caplog.records[0].path) == 200
    from fedprompt.processes.logs import JsonFormatter, PlainFormatter

    for formatter in (JsonFormatter(), PlainFormatter()):
        assert len(formatter.format(caplog.records[0]).splitlines()) == 1
