"""The HTTP application: /predict, /health and /metrics over one `Service`, and its log."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from export.runtime.serving import metrics
from export.runtime.serving.body import File, read_files
from export.runtime.serving.limits import ErrorResponse
from export.runtime.serving.service import Answer, Service

PREDICT = "/predict"
_LOG = logging.getLogger("export.serving")
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "additionalProperties": _IMAGE["schema"]}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/*": _IMAGE, "multipart/form-data": _FORM},
    }
}


def make_app(service: Service) -> FastAPI:
    """Return the application; the service is closed when it ends.

    The page of FastAPI that tries an API out is left off: its script comes from elsewhere.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="fedprompt",
        version=version("fedprompt"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(_refuse_unknown)],
    )
    app.add_middleware(AccessLog, metrics=service.metrics)
    _add_routes(app, service)
    _add_errors(app)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post(PREDICT, openapi_extra=_BODY)
    async def predict(request: Request, top_k: Annotated[int, Query(ge=1)] = 5) -> JSONResponse:
        """Name the most probable classes of each image that is sent, and say which are none."""
        return JSONResponse((await _within(service, request, top_k)).to_dict())

    @app.get("/health")
    async def health() -> JSONResponse:
        """Say whether images can be answered, and by what; 503 if not."""
        ready = service.ready
        report = {"live": True, "ready": ready, "model": service.describe()}
        return JSONResponse(report, status_code=200 if ready else 503)

    @app.get("/health/live")
    async def live() -> JSONResponse:
        """Say that the process answers, whether or not images can be."""
        return JSONResponse({"live": True})

    @app.get("/metrics")
    async def page() -> Response:
        """Return the figures for Prometheus."""
        service.metrics.ready.set(service.ready)
        service.metrics.arriving.set(len(service.arrivals))
        return Response(service.metrics.page(), media_type=metrics.CONTENT_TYPE)


async def _within(service: Service, request: Request, top_k: int) -> Answer:
    """Answer within the limits; a request has a place from its body's arrival to its work's end."""
    limits, loop = service.limits, asyncio.get_running_loop()
    end = loop.time() + limits.seconds
    try:
        async with service.arrivals.until(end) as count:
            files = await read_files(request, limits, count)
    except TimeoutError:
        message = (
            f"the body did not arrive within {limits.seconds:g} seconds, or others needed its room"
        )
        raise ErrorResponse(408, "body_too_slow", message) from None
    service.enter()
    work = asyncio.ensure_future(_answer(service, files, top_k))
    await asyncio.wait({work}, timeout=max(0.0, end - loop.time()))
    if not work.done():  # a thread cannot be stopped: the place stays taken until it is through
        work.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise ErrorResponse(504, "too_slow", f"no answer within {limits.seconds:g} seconds")
    return work.result()


async def _answer(service: Service, files: list[File], top_k: int) -> Answer:
    try:
        return await service.predict(files, top_k)
    finally:
        service.leave()


def _refuse_unknown(request: Request) -> None:
    """Refuse a query that says something its path does not take, or says it twice."""
    given = [name for name, _ in request.query_params.multi_items()]
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in given:
        if name not in known:
            raise ErrorResponse(
                422, "query", f"found {name[:100]!r}; expected {' or '.join(known) or 'no query'}"
            )
        if given.count(name) > 1:
            raise ErrorResponse(
                422, "query", f"{name} is given {given.count(name)} times; give it once"
            )


def _add_errors(app: FastAPI) -> None:
    """Give every error one shape: ``{"error": {"code", "message"}}``."""

    def answer(problem: ErrorResponse, headers: dict[str, str] | None = None) -> JSONResponse:
        headers = problem.headers | (headers or {})
        return JSONResponse(problem.to_dict(), problem.status, headers=headers)

    @app.exception_handler(ErrorResponse)
    async def told(_: Request, problem: ErrorResponse) -> JSONResponse:
        return answer(problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(ErrorResponse(422, "query", f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method"}
        code = codes.get(error.status_code, "http")
        problem = ErrorResponse(error.status_code, code, str(error.detail))
        return answer(problem, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        return answer(ErrorResponse(500, "internal", "the service failed; its log says why"))


class AccessLog:
    """Count and log every request to /predict; file names and addresses are left out."""

    def __init__(self, app: ASGIApp, metrics: metrics.Metrics) -> None:
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
            self._log(status, time.perf_counter() - begin)

    def _log(self, status: int, seconds: float) -> None:
        self._metrics.requests.labels(str(status)).inc()
        self._metrics.seconds.observe(seconds)
        level = logging.ERROR if status >= 500 else logging.INFO
        fields = {"event": "request", "status": status, "seconds": round(seconds, 4)}
        _LOG.log(level, "predict answered %d", status, extra=fields)
