"""Read the images of a request: a multipart form or one raw image, no byte past the limit.

Everything stays in memory: no image is written to a temporary file.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from export.runtime.serving.limits import ErrorResponse, Limits

_FORM = "multipart/form-data"
_RAW = "application/octet-stream"


@dataclass(frozen=True)
class File:
    """One image as it was sent, and the name to answer under."""

    name: str
    content: bytes


class Arrivals:
    """Keep the time and the memory of bodies that are on their way.

    Parameters
    ----------
    most
        Bytes of all of them together; past it the one that began first is given up.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[asyncio.Timeout, int] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._sizes)

    @asynccontextmanager
    async def until(self, end: float) -> AsyncIterator[Callable[[int], None]]:
        """Give a body until ``end`` on the loop's clock; yield what counts its bytes.

        Raises
        ------
        TimeoutError
            It was not there in time, or had to make room.
        """
        async with asyncio.timeout_at(end) as deadline:
            self._sizes[deadline] = 0

            def count(size: int) -> None:
                if deadline in self._sizes:
                    self._sizes[deadline] += size
                while sum(self._sizes.values()) > self._most:
                    oldest = next(iter(self._sizes))
                    del self._sizes[oldest]
                    oldest.reschedule(0.0)

            try:
                yield count
            finally:
                self._sizes.pop(deadline, None)


async def read_files(request: Request, limits: Limits, count: Callable[[int], None]) -> list[File]:
    """Return the images of a request's body, at least one.

    Parameters
    ----------
    count
        Told the size of each piece of the body.

    Raises
    ------
    ErrorResponse
        400 the form is broken or incomplete, or holds no or too many files; 413 the body is too
        large; 415 it is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _RAW) and not kind.startswith("image/"):
        raise ErrorResponse(
            415,
            "content_type",
            f"found content type {kind[:100]!r}; expected {_FORM}, {_RAW} or an image type such as "
            "image/jpeg",
        )
    coding = ", ".join(request.headers.getlist("content-encoding"))
    if {name.strip().lower() for name in coding.split(",")} - {"identity", ""}:
        raise ErrorResponse(
            415, "content_type", f"found content encoding {coding[:100]!r}; expected none"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    if kind == _FORM:
        files = await _form(request, limits, count)
    else:
        parts = [chunk async for chunk in _limited(request, limits, count)]
        files = [File("image 0", b"".join(parts))]
    if not any(file.content for file in files):
        raise ErrorResponse(400, "no_image", "found no image, or empty ones; send one file or more")
    return files


async def _limited(
    request: Request, limits: Limits, count: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    seen = 0
    try:
        async for chunk in request.stream():
            seen += len(chunk)
            if seen > limits.max_bytes:
                raise _too_large(limits)
            count(len(chunk))
            yield chunk
    except ClientDisconnect:
        message = f"the connection ended after {seen:,} bytes of the body"
        raise ErrorResponse(400, "incomplete", message) from None


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # the body has a limit of its own


async def _form(request: Request, limits: Limits, count: Callable[[int], None]) -> list[File]:
    stream = _limited(request, limits, count)
    parser = _InMemory(request.headers, stream, max_files=limits.max_images, max_fields=0)
    try:
        form = await parser.parse()
        values = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [File(_name(value, index), await value.read()) for index, value in enumerate(values)]
    except (MultiPartException, ValueError) as error:  # the form parser's errors are ValueErrors
        reason = getattr(error, "message", str(error)).rstrip(".")
        message = f"the form cannot be read: {reason}; send files only"
        raise ErrorResponse(400, "form", message) from None
    finally:
        for file in parser._files_to_close_on_error:  # the parser itself does for some errors only
            file.close()


def _name(file: UploadFile, index: int) -> str:
    """Return a file's name; half a character, which some charsets can say, is no JSON."""
    return (file.filename or f"image {index}").encode(errors="replace").decode()


def _too_large(limits: Limits) -> ErrorResponse:
    return ErrorResponse(
        413, "body_too_large", f"the body is larger than {limits.max_bytes:,} bytes; send less"
    )
