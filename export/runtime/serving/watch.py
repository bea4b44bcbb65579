"""Count and log every request to /predict, whatever became of it."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from export.runtime.serving.metrics import Metrics

PREDICT = "/predict"
_log = logging.getLogger("export.serving")


class Watch:
    """Stand before the application; file names and addresses are not told."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note its status and time."""
        if scope["type"] != "http" or scope["path"] != PREDICT:
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._tell(status, time.perf_counter() - begin)

    def _tell(self, status: int, seconds: float) -> None:
        self._metrics.requests.labels(str(status)).inc()
        self._metrics.seconds.observe(seconds)
        level = logging.ERROR if status >= 500 else logging.INFO
        told = {"event": "request", "status": status, "seconds": round(seconds, 4)}
        _log.log(level, "predict answered %d", status, extra=told)
