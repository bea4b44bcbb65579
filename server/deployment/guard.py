"""Restrict sites to Flower's fleet API, and keep an audit of refused requests.

Flower serves every API on one port, and whoever reaches the control API may submit code and
register keys. So the SuperLink listens twice: the port for sites passes ``/v1/fleet/`` only, the
control port is bound to loopback. The port that a connection came in by decides, not its address,
so that a proxy on the same machine opens nothing.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
_REFUSED = {
    401: "unknown or unregistered key",
    403: "not allowed",
    404: "no such path",
    # Flower's answer at activation
    412: "a key that is not enrolled, that is online already, or another version of Flower",
    413: "the request is too large",
}
_log = logging.getLogger("fedprompt.audit")


class Guard:
    """Wrap the SuperLink's ASGI application.

    Parameters
    ----------
    app
        The application.
    public_port
        The port that sites reach.
    max_request
        Bytes of one request's body, at most (F04).
    """

    def __init__(self, app: App, public_port: int, max_request: int) -> None:
        self.app, self.public_port, self.max_request = app, public_port, max_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with a line in the audit."""
        if scope["type"] == "lifespan" or scope["server"][1] != self.public_port:
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            _audit(scope, 404)
            await send({"type": "websocket.close", "code": 1008})
        elif not scope["path"].startswith(FLEET):
            _audit(scope, 404)
            await _answer(send, 404)
        elif _declared(scope) > self.max_request:
            _audit(scope, 413)
            await _answer(send, 413)
        else:
            await self.app(scope, self._bounded(scope, receive), _watched(scope, send))

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Cut off a body that grows past the cap, whatever length it declared."""
        seen = 0

        async def bounded() -> Event:
            nonlocal seen
            event = await receive()
            seen += len(event.get("body", b""))
            if seen > self.max_request:
                _audit(scope, 413)
                return {"type": "http.disconnect"}
            return event

        return bounded


def _watched(scope: Scope, send: Send) -> Send:
    async def watched(event: Event) -> None:
        if event["type"] == "http.response.start" and event["status"] in (401, 403, 412, 413):
            _audit(scope, event["status"])
        await send(event)

    return watched


def _declared(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def _audit(scope: Scope, status: int) -> None:
    reason = _REFUSED[status]
    client = scope.get("client") or ("?", 0)
    extra = {"event": "refused", "peer": client[0], "path": scope["path"][:200], "status": status}
    _log.warning("refused %s at %.200s: %s", client[0], scope["path"], reason, extra=extra)


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})
