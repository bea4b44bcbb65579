"""Read the images of a request: a multipart form or one raw image, no byte past the limit.

Everything stays in memory: no image is written to a temporary file.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from export.serving.limits import Limits
from export.serving.problem import Problem

_FORM = "multipart/form-data"
_RAW = "application/octet-stream"


@dataclass(frozen=True)
class File:
    """Hold one image as it was sent, and the name to answer under."""

    name: str
    content: bytes


async def read_files(request: Request, limits: Limits) -> list[File]:
    """Return the images of a request's body, at least one.

    Raises
    ------
    Problem
        400 the form is broken or incomplete, or holds no or too many files; 413 the body is too
        large; 415 it is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _RAW) and not kind.startswith("image/"):
        raise Problem(
            415,
            "content_type",
            f"found content type {kind[:100]!r}; expected {_FORM}, {_RAW} or an image type such as "
            "image/jpeg",
        )
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Problem(
            415, "content_type", f"found content encoding {coding[:100]!r}; expected none"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    if kind == _FORM:
        files = await _form(request, limits)
    else:
        parts = [chunk async for chunk in _limited(request, limits)]
        files = [File("image 0", b"".join(parts))]
    if not files or not all(file.content for file in files):
        raise Problem(400, "no_image", "found no image, or an empty one; send one file or more")
    return files


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    seen = 0
    try:
        async for chunk in request.stream():
            seen += len(chunk)
            if seen > limits.max_bytes:
                raise _too_large(limits)
            yield chunk
    except ClientDisconnect:
        message = f"the connection ended after {seen:,} bytes of the body"
        raise Problem(400, "incomplete", message) from None


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # the body has a limit of its own


async def _form(request: Request, limits: Limits) -> list[File]:
    stream = _limited(request, limits)
    parser = _InMemory(request.headers, stream, max_files=limits.max_images, max_fields=0)
    try:
        form = await parser.parse()
        values = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [File(_name(value, index), await value.read()) for index, value in enumerate(values)]
    except (MultiPartException, ValueError) as error:  # the form parser's errors are ValueErrors
        reason = getattr(error, "message", str(error)).rstrip(".")
        message = f"the form cannot be read: {reason}; send files only"
        raise Problem(400, "form", message) from None
    finally:
        for file in parser._files_to_close_on_error:  # the parser itself does for some errors only
            file.close()


def _name(file: UploadFile, index: int) -> str:
    """Return a file's name; half a character, which some charsets can say, is no JSON."""
    return (file.filename or f"image {index}").encode(errors="replace").decode()


def _too_large(limits: Limits) -> Problem:
    return Problem(
        413, "body_too_large", f"the body is larger than {limits.max_bytes:,} bytes; send less"
    )
